"""How a thin volume is cleared: by what its pool does with blocks that are given back."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pool:
    """Of the group's thin pool, as lvs reports it."""

    # A block is zeroed before another volume gets it.
    zeroes: bool
    # None where it ignores them.
    takes_discards: bool
    is_full: bool
    chunk_bytes: int

    @classmethod
    def parse(cls, line: str) -> Pool:
        """A line of `command.thin_pool`."""
        zero, discards, percent, chunk = line.strip().split("|")
        return cls(zero == "1", discards != "ignore", float(percent or 0) >= 100, int(chunk))

    def method(self, size_bytes: int) -> str:
        """discard where that leaves nothing for the next volume, else overwrite.

        A part of a chunk is not given back, and would be found by the check. A full pool has no block for
        what a snapshot shares: there a discard is all that can be done.
        """
        whole = self.takes_discards and size_bytes % self.chunk_bytes == 0
        return "discard" if whole and (self.zeroes or self.is_full) else "overwrite"
