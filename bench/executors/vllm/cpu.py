"""Lets the stock vLLM wheel run on a machine without an accelerator: a CPU platform with PyTorch reference kernels.

vLLM calls `select` in every process, through the `vllm.platform_plugins` entry point. An out-of-tree platform beats
vLLM's own, so it answers None wherever one of vLLM's built-in platforms is present.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

PLATFORM = "bench.executors.vllm.cpu_platform.ReferenceCpuPlatform"


def select(builtin: Mapping[str, Callable[[], str | None]] | None = None) -> str | None:
    """The platform class to use, or None to leave the choice to vLLM."""
    if builtin is None:
        from vllm.platforms import builtin_platform_plugins

        builtin = builtin_platform_plugins
    if any(_present(plugin) for plugin in builtin.values()):
        return None
    from bench.executors.vllm import cpu_operators  # noqa: F401 - importing it registers the operators

    return PLATFORM


def _present(plugin: Callable[[], str | None]) -> bool:
    """vLLM itself reads a check that raises as "not here" (a missing driver library, say)."""
    try:
        return plugin() is not None
    except Exception:
        return False
