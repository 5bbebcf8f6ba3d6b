"""Several core steps in a row on a loaded executor."""

from collections.abc import Sequence

import torch

from bench.api import Executor, Workload
from bench.data import Batch


def steps(executor: Executor, workload: Workload, start: int, batches: Sequence[Batch]) -> torch.Tensor:
    """Losses [n_batches, n_probes] of steps `start`, `start + 1`, ..."""
    return torch.stack([executor.step(workload, at, batch).clone() for at, batch in enumerate(batches, start=start)])
