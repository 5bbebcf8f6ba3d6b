"""Whether the replicas are still alike: the checksums they report for the same position of the log."""

from __future__ import annotations

from collections import Counter

REMEMBERED = 20


class Checksums:
    """differed: (position, replica) of every difference that was found."""

    def __init__(self) -> None:
        self._found: dict[int, dict[int, str]] = {}
        self._astray: set[int] = set()
        self.compared = 0
        self.differed: list[tuple[int, int]] = []

    def add(self, position: int, replica: int, value: str) -> None:
        """Most replicas are right; of two, the one with the lower number."""
        found = self._found.setdefault(position, {})
        found[replica] = value
        if len(found) > 1:
            self.compared += 1
            votes = Counter(found.values())
            right = max(votes, key=lambda one: (votes[one], -min(r for r, v in found.items() if v == one)))
            for number in [number for number, reported in found.items() if reported != right]:
                self._astray.add(number)
                self.differed.append((position, number))
                del found[number]
        for old in sorted(self._found)[:-REMEMBERED]:
            del self._found[old]

    def astray(self) -> list[int]:
        return sorted(self._astray)

    def settled(self, replica: int) -> None:
        self._astray.discard(replica)
