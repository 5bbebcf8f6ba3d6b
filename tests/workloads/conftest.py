"""Another default dtype of torch for a while: engines load their weights under one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch


@pytest.fixture(scope="session")
def default_dtype() -> Callable[[torch.dtype], AbstractContextManager[None]]:
    """default_dtype(torch.float16) as a context."""

    @contextmanager
    def within(dtype: torch.dtype) -> Iterator[None]:
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(before)

    return within
