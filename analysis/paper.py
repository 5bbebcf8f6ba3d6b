"""Published figures that ours are printed beside; a single GPU, its model not named.

Two sources, which differ: the paper (arXiv 2605.28760; its first version's abstract) and the authors' repository
(playeriv65/zo-vllm, a rerun of June 2026: the last 100 of 300 steps, rank 2, interval 50).
"""

PAPER = "paper, v1"
RERUN = "authors' rerun, June 2026"

CORE_STEP_RANGE = (2.34, 7.72)
"""PAPER: official over vLLM from OPT-1.3B to 13B, core steps."""
END_TO_END_RATIO = 8.13
END_TO_END_H = {"opt-13b": (4.15, 0.51)}
"""PAPER: model -> hours of 20,000 LoZO steps, official and vLLM; core steps only."""
STEPS = 20_000

CORE_STEP_S = {
    ("opt-1.3b", 16): (0.102790, 0.037407),
    ("opt-1.3b", 32): (0.116942, 0.042123),
    ("opt-1.3b", 64): (0.184766, 0.060023),
    ("opt-1.3b", 128): (0.332799, 0.114333),
    ("opt-2.7b", 16): (0.129184, 0.047936),
    ("opt-2.7b", 32): (0.193259, 0.054465),
    ("opt-2.7b", 64): (0.312758, 0.097625),
    ("opt-2.7b", 128): (0.582421, 0.186070),
    ("opt-6.7b", 16): (0.367097, 0.055373),
    ("opt-6.7b", 32): (0.490200, 0.098970),
    ("opt-6.7b", 64): (0.773073, 0.184394),
    ("opt-6.7b", 128): (1.386286, 0.369012),
    ("opt-13b", 16): (0.726122, 0.093101),
    ("opt-13b", 32): (0.960578, 0.172118),
    ("opt-13b", 64): (1.504317, 0.333078),
    ("opt-13b", 128): (2.644368, 0.664617),
}
"""RERUN: model and batch size -> seconds of a LoZO core step of the official loop and of vLLM."""

SAVED = {"probe and forward": 0.8934, "update": 0.0574, "other": 0.0492}
"""RERUN: which part of the step the time saved was spent in, over all sixteen cells together."""

FACTORIZED_RATIO = {("opt-1.3b", 128): 2.55, ("opt-1.3b", 256): 2.54, ("opt-1.3b", 512): 2.24}
"""PAPER: model and rank -> MeZO's time over the factorized workload's, 1000 steps."""
LOSS_CHANGE = {None: -0.114, 128: -0.110, 256: -0.109, 512: -0.101}
"""PAPER, OPT-1.3B: rank (None: MeZO) -> mean loss at step 1000 minus that at step 200."""
LOSS_CHANGE_STEPS = (200, 1000)
SIGNS_AGREE = {"high signal": 1.0, "low signal": 0.694}
"""PAPER: share of steps in which the projected gradients of two executors have the same sign."""
