"""The ring of published versions: `tuned` always means one of them, and a version stays until its last reader is done.

A version is written into a slot that nobody reads, under a name of its own. The name is part of what vLLM files keys and values
under, so those of another version are never found; switching is one assignment in the server's table of models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

MODEL = "tuned"


class Refused(Exception):
    """What was asked for cannot be done now; the message says why and what to do."""


def name_of(version: int) -> str:
    return f"{MODEL}@{version}"


class Ring:
    """adapters: vLLM's ids of the ring's slots; path: the empty adapter they were opened from; models: vLLM's table."""

    def __init__(self, models: Any, adapters: list[int], path: str) -> None:
        self._models, self._path = models, path
        self._versions: dict[int, int] = dict.fromkeys(adapters, -1)  # slot -> what stands in it, the one left last comes last
        self.readers: Counter[int] = Counter()
        self.version, self.slot = -1, 0

    def holds(self, version: int) -> int | None:
        """The slot that a version stands in."""
        return next((slot for slot, held in self._versions.items() if held == version), None)

    def free(self) -> int | None:
        """The slot that was left longest ago, and that nobody reads; None when all are read."""
        return next((slot for slot in self._versions if slot != self.slot and not self.readers[slot]), None)

    def fill(self, slot: int, version: int) -> Any:
        """Say what is now written in a slot; the request that reads it."""
        self._versions.pop(slot)
        self._versions[slot] = version
        return self._request(slot)

    def switch(self, slot: int) -> None:
        """From now on `tuned` is what stands in this slot; those who read another go on to read it."""
        if self.slot:
            self._versions[self.slot] = self._versions.pop(self.slot)
        self.slot, self.version = slot, self._versions[slot]
        self._models.lora_requests[MODEL] = self._request(slot)

    def list_by_name(self) -> None:
        """In the server's list of models `tuned` is called that; its versions are told in the answers."""
        show = self._models.show_available_models

        async def shown() -> Any:
            found = await show()
            for card in found.data:
                if card.id == name_of(self.version):
                    card.id, card.root = MODEL, name_of(self.version)
            return found

        self._models.show_available_models = shown

    def watch(self, llm: Any) -> None:
        """Count who reads which slot, from the moment the engine is asked to the last token or the end of the connection."""
        generate = llm.generate

        async def counted(*args: Any, lora_request: Any = None, **more: Any) -> AsyncIterator[Any]:
            if lora_request is None:
                slot = 0
            else:
                slot = lora_request.lora_int_id
                if name_of(self._versions[slot]) != lora_request.lora_name:  # rewritten since the model's name was looked up
                    now = self._request(self.slot)
                    lora_request.lora_name, lora_request.lora_int_id = now.lora_name, now.lora_int_id
                    slot = self.slot
            self.readers[slot] += 1
            try:
                async for output in generate(*args, lora_request=lora_request, **more):
                    yield output
            finally:
                self.readers[slot] -= 1

        llm.generate = counted

    def _request(self, slot: int) -> Any:
        from vllm.lora.request import LoRARequest

        return LoRARequest(name_of(self._versions[slot]), slot, self._path)
