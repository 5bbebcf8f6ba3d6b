"""Which vLLM versions the executor runs on, and what differs between them: found out here, by asking for it, and nowhere else.

What one version adds and the others do without needs no asking: an argument that is ignored, an operator that nobody calls.
Imports vLLM inside functions alone, so that `doctor` can ask without it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

DEFAULT, NEWEST = "0.26.0", "0.33.0"
KNOWN = {DEFAULT: "the default, tested by make test", NEWEST: "tested by make test-newest"}
"""Versions that are known to work, and by what."""


class ServerParts(NamedTuple):
    """What vLLM's OpenAI-compatible server is put together from."""

    build_app: Callable[..., Any]
    init_app_state: Callable[..., Any]
    setup_server: Callable[..., Any]
    serve_http: Callable[..., Any]
    make_arg_parser: Callable[..., Any]


def known(version: str) -> str:
    """By what a version is known to work; ValueError where it was not tried."""
    if version in KNOWN:
        return f"{version} is known to work: {KNOWN[version]}"
    raise ValueError(f"{version} was not tried; known to work: {', '.join(KNOWN)}")


def server_parts() -> ServerParts:
    from vllm.entrypoints.openai.api_server import build_app, init_app_state, setup_server

    if find_spec("vllm.entrypoints.launchers"):  # 0.33 moved the launcher and the arguments; mypy sees one version of two
        from vllm.entrypoints.common.cli_args import make_arg_parser
        from vllm.entrypoints.launchers.launcher import serve_http
    else:
        from vllm.entrypoints.launcher import serve_http
        from vllm.entrypoints.openai.cli_args import make_arg_parser
    return ServerParts(build_app, init_app_state, setup_server, serve_http, make_arg_parser)


def blocks_of(backend: Any, size: int) -> Any:
    """The attention backend itself where it takes KV blocks of so many tokens; else a class that does.

    For the CPU alone, where the kernels are ours and take blocks of any size: 0.33 has blocks of 32 tokens for its own.
    """
    from vllm.v1.attention.backend import MultipleOf

    if any(size % (one.base if isinstance(one, MultipleOf) else one) == 0 for one in backend.get_supported_kernel_block_sizes()):
        return backend
    return type(backend.__name__, (backend,), {"get_supported_kernel_block_sizes": staticmethod(lambda *_: [MultipleOf(size)])})
