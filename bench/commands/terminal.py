"""Where this was before; `bench.terminal` now."""

from bench.terminal import stderr_console

__all__ = ["stderr_console"]
