"""The versions of vLLM: one of those that are known to work is installed, and what differs between them is found in it."""

from __future__ import annotations

import inspect
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from bench.commands import doctor
from bench.executors.vllm import compat

ROOT = Path(__file__).parents[2]


def test_the_default_is_what_is_installed_with_the_suite_and_the_newest_what_its_job_installs() -> None:
    pinned = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert f"vllm=={compat.DEFAULT}" in pinned
    assert f"\nNEWEST := {compat.NEWEST}\n" in (ROOT / "Makefile").read_text()
    assert version("vllm") in compat.KNOWN


@pytest.mark.parametrize(("installed", "ok"), [("0.26.0", True), ("0.33.0", True), ("0.30.0", False), (None, None)])
def test_doctor_knows_the_versions(
    installed: str | None, ok: bool | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "version", lambda package: installed if package == "vllm" else "1")
    monkeypatch.setattr(doctor, "vllm_platform", lambda: "")
    found = {finding.name: finding for finding in doctor.examine(str(tmp_path))}
    assert found["vllm"].ok is (installed is not None) and found["vllm"].needed
    if installed is None:
        assert "vllm version" not in found and "pip install vllm==0.26.0" in found["vllm"].mend
        return
    judged = found["vllm version"]
    assert judged.ok is ok and not judged.needed
    if ok:
        assert f"{installed} is known to work" in judged.found
    else:
        assert "0.26.0, 0.33.0" in judged.found and "pip install vllm==0.26.0" in judged.mend and judged.lacks == "untried"


def test_the_parts_of_the_server_take_what_the_server_gives() -> None:
    parts = compat.server_parts()
    assert all(map(callable, parts))
    assert {"app", "sock", "enable_ssl_refresh"} <= inspect.signature(parts.serve_http).parameters.keys()
    assert [*inspect.signature(parts.init_app_state).parameters] == ["engine_client", "state", "args", "supported_tasks"]
    assert "reuse_port" in inspect.signature(parts.setup_server).parameters


def test_the_cpus_attention_takes_blocks_of_sixteen_tokens() -> None:
    from vllm.v1.attention.backend import MultipleOf
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    from bench.executors.vllm.cpu_backend import ReferenceCpuAttention

    assert issubclass(ReferenceCpuAttention, CPUAttentionBackend)
    assert [one.base for one in ReferenceCpuAttention.get_supported_kernel_block_sizes()] == [16]
    assert compat.blocks_of(CPUAttentionBackend, 32) is CPUAttentionBackend

    class Wide(CPUAttentionBackend):
        get_supported_kernel_block_sizes = staticmethod(lambda *_: [64, MultipleOf(48)])

    made = compat.blocks_of(Wide, 16)
    assert made is not Wide and issubclass(made, Wide) and compat.blocks_of(made, 16) is made
    assert compat.blocks_of(Wide, 64) is Wide and compat.blocks_of(Wide, 96) is Wide
