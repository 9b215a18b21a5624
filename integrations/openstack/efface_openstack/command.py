"""The command lines that efface is called with, and its exit codes.

The rootwrap filters are these same lines with patterns for the values (see filters.py), so that there is
one place that says what they look like.
"""

from __future__ import annotations

from dataclasses import dataclass

NOT_SUPPORTED = 4

MEANINGS = {
    1: "it failed",
    2: "this efface does not know these options",
    3: "it was refused, and nothing was written",
    4: "it is not supported, and nothing was written",
    5: "done with residue: parts could not be overwritten",
    6: "data survives: what was read back is not what was written",
    7: "it is busy, and nothing was written",
    99: "rootwrap did not allow it: is efface.filters in its filters_path?",
}


def meaning(exit_code: int, stderr: str) -> str:
    """What the operator reads: efface's own sentence names device, offset, reason and way out."""
    prefix = "efface: "
    said = [line.removeprefix(prefix) for line in stderr.splitlines() if line.startswith(prefix)]
    told = " ".join(said) or stderr.strip()
    return f"{MEANINGS.get(exit_code, f'efface ended with {exit_code}')}: {told}"


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
        if self.rate is not None:
            words += ["--rate", self.rate]
        elif self.yields:
            words.append("--yield")
        if self.prefer_key:
            words.append("--prefer-key")
        elif self.size is not None:
            words += ["--size", self.size]
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
