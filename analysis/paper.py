"""Published figures that ours are printed beside. Source: arXiv 2605.28760; a single GPU, its model not named."""

CORE_STEP_S = {
    ("opt-1.3b", 16): (0.1028, 0.0374),
    ("opt-2.7b", 16): (0.1292, 0.0479),
    ("opt-6.7b", 16): (0.3671, 0.0554),
    ("opt-13b", 16): (0.7261, 0.0931),
    ("opt-13b", 32): (0.9606, 0.1721),
    ("opt-13b", 128): (2.6444, 0.6646),
}
"""Model and batch size -> seconds of a LoZO core step of the official loop and of vLLM."""

END_TO_END_H = {"opt-13b": (4.15, 0.51)}
"""Model -> hours of 20,000 LoZO steps, official and vLLM."""
STEPS = 20_000

FACTORIZED_RATIO = {("opt-1.3b", 128): 2.55, ("opt-1.3b", 256): 2.54, ("opt-1.3b", 512): 2.24}
"""Model and rank -> MeZO's time over the factorized workload's, 1000 steps."""
