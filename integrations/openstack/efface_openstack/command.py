"""The command lines that efface is called with, and its exit codes.

The rootwrap filters are these same lines with patterns for the values (see filters.py), so that there is
one place that defines their form.
"""

from __future__ import annotations

from dataclasses import dataclass

# Of the driver, of the filters that are made from it, and of the efface whose options these are.
VERSION = "0.1.0"

# Root's, and the only folders that the filters admit.
CERTIFICATES = "/var/lib/efface/certificates"
JOBS = "/var/lib/efface/jobs"
LEDGER = "/var/lib/efface/ledger"
# A file for each volume and one for all jobs, for node_exporter's textfile collector.
METRICS = "/var/lib/efface/metrics"
# Read by root alone; its public half beside it has `.pub` behind the name.
SIGNING_KEY = "/etc/efface/signing-key"

# Of the names of volumes that wait to be cleared; efface jobs finds them by it (src/device/queued.rs).
PREFIX = "efface-deleted-"

FAILED = 1
USAGE = 2
REFUSED = 3
NOT_SUPPORTED = 4
RESIDUE = 5
SURVIVING = 6
BUSY = 7

MEANINGS = {
    1: "it failed",
    2: "efface did not begin: an option, the device or a folder is not as it should be",
    3: "it was refused, and nothing was written",
    4: "it is not supported, and nothing was written",
    5: "done with residue: something may still hold what was there before",
    6: "data survives: what was read back is not what was written",
    7: "it is busy, and nothing was written",
    96: "rootwrap found no such program: is efface installed, in a folder of its exec_dirs?",
    97: "rootwrap cannot use its configuration, or was interrupted",
    99: "rootwrap did not allow it: is efface.filters in its filters_path, and of this version?",
    130: "SIGINT ended it; its checkpoint is kept",
    137: "SIGKILL ended it: by hand, or out of memory (dmesg)",
    143: "SIGTERM ended it; its checkpoint is kept",
}

# Of efface purge.
MEANINGS_OF_PURGE = {
    **MEANINGS,
    FAILED: "the drive reports a failure, or nothing proves that it was erased",
    NOT_SUPPORTED: "the drive does not offer it, and nothing was written",
    RESIDUE: "the drive reports that it was erased, and not all known blocks could be read since",
    SURVIVING: "data survives: a known block is still there, whatever the drive reports",
    130: "SIGINT ended it; the drive goes on alone",
    143: "SIGTERM ended it; the drive goes on alone",
}


def meaning(exit_code: int, stderr: str, meanings: dict[int, str] = MEANINGS) -> str:
    """What the operator reads: efface's own message names device, offset, reason and remedy."""
    prefix = "efface: "
    reported = [line.removeprefix(prefix) for line in stderr.splitlines() if line.startswith(prefix)]
    message = " ".join(reported) or stderr.strip()
    # Of a child that a signal ended; rootwrap reports it as a shell does.
    code = 128 - exit_code if exit_code < 0 else exit_code
    heading = meanings.get(code, f"efface ended with {code}")
    return f"{heading}: {message}" if message else heading


@dataclass(frozen=True, kw_only=True)
class Order:
    """What every job is given: the device, the tenant, and where its record goes."""

    device: str
    volume_id: str
    tenant: str
    ionice: str
    wait: str
    binary: str = "efface"
    # A file system that other hosts may have mounted, on a volume that cinder knows to be detached.
    shared_fs: bool = False
    # Refusals that the operator accepts: users that cannot be seen, layers that keep copies.
    unseen: bool = False
    copies: bool = False
    # Evidence beside the certificate.
    sign: bool = False
    ledger: bool = False

    def words(self) -> list[str]:
        return [*self._fixed(), *self.options()]

    def options(self) -> list[str]:
        """What a command line may have or not: one word each, after those that it always has."""
        kinds = {"shared-fs": self.shared_fs, "unseen": self.unseen, "copies": self.copies}
        options = [f"--force={kind}" for kind, forced in kinds.items() if forced]
        if self.sign:
            options.append(f"--sign-key={SIGNING_KEY}")
        if self.ledger:
            options.append(f"--ledger={LEDGER}")
        return options

    def _fixed(self) -> list[str]:
        raise NotImplementedError

    def _head(self, command: str) -> list[str]:
        return [
            self.binary,
            command,
            self.device,
            *("--ionice", self.ionice),
            *("--wait", self.wait),
            *("--certificate-to", CERTIFICATES),
            *("--detail", f"job.volume_id={self.volume_id}"),
            *("--detail", f"job.tenant={self.tenant}"),
            *("--yes", "--quiet"),
        ]


@dataclass(frozen=True, kw_only=True)
class Wipe(Order):
    """`efface wipe`, with a limit of concurrent processes on this host, to be resumed after a crash."""

    method: str
    verify: str
    slots: str
    # What others on the disk may lose, `10%`, and the lowest rate in any case.
    yields: str | None = "10%"
    yield_min: str | None = None
    rate: str | None = None
    size: str | None = None
    metrics: bool = False
    skip_zeroes: bool = False
    offload: bool = False

    def _fixed(self) -> list[str]:
        return [
            *self._head("wipe"),
            *("--method", self.method),
            *("--verify", self.verify),
            *("--slots", self.slots),
            *("--state-dir", JOBS),
            "--resume",
        ]

    def options(self) -> list[str]:
        options = super().options()
        if self.rate is not None:
            options.append(f"--rate={self.rate}")
        elif self.yields is not None:
            options.append(f"--yield={self.yields}")
            if self.yield_min is not None:
                options.append(f"--yield-min={self.yield_min}")
        if self.size is not None:
            options.append(f"--size={self.size}")
        if self.skip_zeroes:
            options.append("--skip-zeroes")
        elif self.offload:
            options.append("--zero-with=offload")
        if self.metrics:
            options.append(f"--metrics={METRICS}/{self.volume_id}.prom")
        return options


@dataclass(frozen=True, kw_only=True)
class DestroyKey(Order):
    """`efface destroy-key`, naming the secret that opens the volume and is kept elsewhere."""

    external_key: str

    def _fixed(self) -> list[str]:
        return [*self._head("destroy-key"), "--external-key", self.external_key]


def verify(binary: str, device: str, ionice: str, certificate: str) -> list[str]:
    """Reads again what a certificate says: the blocks that were read then, and newly drawn ones."""
    file = f"{CERTIFICATES}/{certificate}"
    return [binary, "verify", device, "--ionice", ionice, "--certificate", file, "--quiet"]


def version(binary: str) -> list[str]:
    """Filters of another version do not admit it; efface reads nothing after --version."""
    return [binary, "--version", VERSION]


def jobs(binary: str, metrics: bool = False) -> list[str]:
    """What runs, what waits, what could be resumed, what ended; and how many of each, for node_exporter."""
    words = [binary, "jobs", "--json", "--state-dir", JOBS]
    return [*words, f"--metrics={METRICS}/jobs.prom"] if metrics else words


def thin_pool(volume_group: str) -> list[str]:
    """What decides how a thin volume is cleared; cinder's own filters admit it."""
    fields = "zero,discards,data_percent,chunk_size"
    form = ["--noheadings", "--binary", "--units", "b", "--nosuffix", "--separator", "|"]
    return ["env", "LC_ALL=C", "lvs", *form, "-o", fields, f"{volume_group}/{volume_group}-pool"]


def volumes(volume_group: str) -> list[str]:
    """Of a group, with what their tags say; cinder's own filters admit it."""
    form = ["--noheadings", "--units", "b", "--nosuffix", "--separator", "|"]
    return ["env", "LC_ALL=C", "lvs", *form, "-o", "lv_name,lv_size,lv_tags", volume_group]


def tag(volume_group: str, name: str, tags: list[str]) -> list[str]:
    """Cinder's own filters admit every lvchange."""
    return ["lvchange", *(word for each in tags for word in ("--addtag", each)), f"{volume_group}/{name}"]


def rename(volume_group: str, name: str, new_name: str) -> list[str]:
    return ["lvrename", volume_group, name, new_name]


def split_snapshot(volume_group: str, name: str) -> list[str]:
    """Makes a plain volume of a thick snapshot's store before it is wiped, see lvconvert(8)."""
    return ["lvconvert", "--splitsnapshot", "--yes", f"{volume_group}/{name}"]
