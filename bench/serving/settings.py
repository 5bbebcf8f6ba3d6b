"""Options of `serve`: where it listens, what users are promised, and when what was learned reaches them."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass

from bench.errors import UsageError, option
from bench.serving.admission import POLICIES, Slo
from bench.settings import SERVING, setting, settings

TOKEN = "ZO_BENCH_TOKEN"
"""The variable that holds the bearer token: an option would stand in the list of processes."""
PROBES = ("auto", "requests", "passes")
PUBLISH_IF = ("better", "always")


@dataclass(frozen=True)
class ServeOptions:
    host: str = setting(SERVING, f"Address to listen on; beyond loopback {TOKEN} holds a token.", "127.0.0.1", "127.0.0.1")
    port: int = setting(SERVING, "Port to listen on; 0: any that is free.", "8000", 8000, least=0)
    train: bool = setting(SERVING, "Begin to train at once; else POST /training/start does.", "no", False)
    policy: str = setting(SERVING, "Which rounds take probes beside users.", "controller", "controller", choices=POLICIES)
    slo: str = setting(
        SERVING, "What --policy controller keeps: ttft_p99=+15% or =80ms.", "ttft_p99=+15%", "ttft_p99=+15%", metavar="BOUND"
    )
    probe_tokens: int = setting(SERVING, "Most probe tokens of a round under --policy fixed.", "128", 128, least=1)
    probes: str = setting(
        SERVING,
        "requests of the scheduler, or passes in a process beside it (CPU); auto: passes where they can be.",
        "auto",
        "auto",
        choices=PROBES,
    )
    publish_every: int = setting(SERVING, "Offer the state to users each N steps; 0: when asked.", "50", 50, metavar="N", least=0)
    publish_if: str = setting(
        SERVING, "better: where the dev loss is not worse than what is served.", "better", "better", choices=PUBLISH_IF
    )
    dev_examples: int = setting(SERVING, "Dev examples that judge a version.", "100", 100, metavar="N", least=1)
    versions: int = setting(SERVING, "Slots for published versions, so that long answers delay none.", "3", 3, least=2)
    slot_rank: int = setting(SERVING, "Rank of a slot: the past, what is learned, and the probe.", "32 x --rank", 0, least=0)
    queue: int = setting(SERVING, "Most posted examples that wait for a minibatch.", "1000", 1000, metavar="N", least=1)
    round_tokens: int = setting(
        SERVING, "Most tokens of a round; longer prompts go in chunks.", "512", 512, metavar="N", least=16
    )
    round_requests: int = setting(SERVING, "Most requests of a round.", "64", 64, metavar="N", least=1)
    kv_mib: int = setting(
        SERVING, "MiB of keys and values; 0: vLLM's own share of the GPU.", "64 on a CPU, else 0", -1, metavar="N"
    )
    state: str = setting(
        SERVING,
        "Folder of journal and snapshots; the same call again goes on.",
        "results/serving",
        "results/serving",
        metavar="DIR",
    )

    def __post_init__(self) -> None:
        for name, found in settings(ServeOptions).items():
            value = getattr(self, name)
            if found.choices and value not in found.choices:
                raise UsageError(f"{option(name)} {value}: not known; choose one of {', '.join(found.choices)}")
            if found.least is not None and value < found.least:
                raise UsageError(f"{option(name)} {value}: must be a whole number of at least {found.least}")
        if self.port > 65535:
            raise UsageError(f"--port {self.port}: ports end at 65535")
        Slo.parse(self.slo)

    def token(self) -> str:
        """What every call has to show; "" on loopback where none is set. UsageError where one is needed."""
        token = os.environ.get(TOKEN, "")
        if not token and not loopback(self.host):
            raise UsageError(
                f"--host {self.host}: others can reach it; set {TOKEN} to a token that clients send, or use 127.0.0.1"
            )
        return token


def loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
