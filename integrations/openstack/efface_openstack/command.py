"""The command lines that efface is called with, and its exit codes.

The rootwrap filters are these same lines with patterns for the values (see filters.py), so that there is
one place that says what they look like.
"""

from __future__ import annotations

from dataclasses import dataclass

NOT_SUPPORTED = 4
BUSY = 7


@dataclass(frozen=True, kw_only=True)
class Order:
    """What every job is told: which device, for whom, and where its record goes."""

    device: str
    volume_id: str
    tenant: str
    ionice: str
    wait: str
    certificate_dir: str
    binary: str = "efface"

    def _words(self, command: str) -> list[str]:
        return [
            self.binary,
            command,
            self.device,
            *("--ionice", self.ionice),
            *("--wait", self.wait),
            *("--certificate-to", self.certificate_dir),
            *("--detail", f"job.volume_id={self.volume_id}"),
            *("--detail", f"job.tenant={self.tenant}"),
            *("--yes", "--quiet"),
        ]


@dataclass(frozen=True, kw_only=True)
class Wipe(Order):
    """`efface wipe`, one of so many at once on this host, to be taken up again after a crash."""

    method: str
    verify: str
    slots: str
    state_dir: str
    yields: bool = True
    rate: str | None = None
    size: str | None = None
    prefer_key: bool = False

    def words(self) -> list[str]:
        words = self._words("wipe")
        words += ["--method", self.method, "--verify", self.verify]
        words += ["--slots", self.slots, "--state-dir", self.state_dir, "--resume"]
        if self.yields:
            words.append("--yield")
        if self.rate is not None:
            words += ["--rate", self.rate]
        if self.size is not None:
            words += ["--size", self.size]
        elif self.prefer_key:
            words.append("--prefer-key")
        return words


@dataclass(frozen=True, kw_only=True)
class DestroyKey(Order):
    """`efface destroy-key`, naming the secret that opens the volume and is kept elsewhere."""

    external_key: str

    def words(self) -> list[str]:
        return [*self._words("destroy-key"), "--external-key", self.external_key]


def jobs(binary: str, state_dir: str) -> list[str]:
    """What runs, what could be resumed, what ended."""
    return [binary, "jobs", "--json", "--state-dir", state_dir]


def split_snapshot(volume_group: str, name: str) -> list[str]:
    """Makes a plain volume of a thick snapshot's store, as lvconvert(8) says before it is wiped."""
    return ["lvconvert", "--splitsnapshot", "--yes", f"{volume_group}/{name}"]
