"""What the records of a volume say, where efface's exit code alone is not enough."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .command import CERTIFICATES, RESIDUE

Record = dict[str, Any]

# How many blocks each level draws at least, where it does not read all (efface wipe --help).
PROBES = {"standard": 4608, "high": 69120, "full": sys.maxsize}
# Of a device's name, the letters that its certificates' names begin with.
NAME_MAX = 64


def names(device: str) -> set[str]:
    """Of the certificates of a device, and of those whose names begin as its name does."""
    start = f"efface-{re.sub('[^A-Za-z0-9_.-]', '_', os.path.basename(device))[:NAME_MAX]}"
    return {name for name in os.listdir(CERTIFICATES) if name.startswith(start) and name.endswith(".json")}


def of_volume(names: set[str], volume_id: str) -> Iterator[tuple[str, Record]]:
    for name in names:
        with open(os.path.join(CERTIFICATES, name), encoding="utf-8") as file:
            record = json.load(file)
        # One that was made by hand names no volume.
        if (record["details"].get("job") or {}).get("volume_id") == volume_id:
            yield name, record


def written_since(before: set[str], volume_id: str, device: str) -> Record:
    """The one record of this volume that was not there before."""
    found = [record for _, record in of_volume(names(device) - before, volume_id)]
    if len(found) != 1:
        raise ValueError(f"{len(found)} new records in {CERTIFICATES} are of the volume {volume_id}")
    return found[0]


def overridden(record: Record) -> list[tuple[str, str]]:
    """The refusals that would have kept the volume, and the kind of each."""
    return [(refusal["what"], refusal["force"]) for refusal in record["findings"]["forced"]]


@dataclass(frozen=True, kw_only=True)
class Cleared:
    """What a record has to say of a volume that needs no second wipe."""

    method: str
    verify: str
    size_bytes: int
    # Of all that is to be cleared, from the first byte.
    area_bytes: int
    # What the kernel calls the device as long as it is there, see device_marks.
    marks: dict[str, Any]
    boot_id: str
    # The volume was not in use from then on.
    since: datetime

    def fits(self, record: Record) -> bool:
        """A field that is missing is an error, as in copies_alone."""
        job, identity = record["job"], record["identity"]
        return (
            (record["verdict"], record["exit_code"], record["error"]) == ("wiped", 0, None)
            and record["method"] == self.method
            and record["host"]["boot_id"] == self.boot_id
            and started(record) > self.since
            and identity["size_bytes"] == self.size_bytes
            and {name: identity[name] for name in self.marks} == self.marks
            and job["plan"]["area"] == {"start": 0, "end": self.area_bytes}
            and job["plan"]["keys"] is None
            and self._read_enough(job["verification"])
        )

    def _read_enough(self, verification: Any) -> bool:
        if verification is None or self.verify not in PROBES:
            return False
        sample = verification["sample"]
        return sample is None or sample["strata"] * sample["per_stratum"] >= PROBES[self.verify]


def started(record: Record) -> datetime:
    # Up to nine digits of a second, of which Python knows six.
    seconds, _, fraction = record["started"].rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{seconds}.{fraction[:6]:0<6}+00:00")


def device_marks(device: str) -> dict[str, Any]:
    """The name that device-mapper gave it, or else the number that no other disk has in this boot."""
    folder = f"/sys/class/block/{os.path.basename(os.path.realpath(device))}"
    if os.path.exists(f"{folder}/dm"):
        with open(f"{folder}/dm/uuid", encoding="ascii") as file:
            return {"dm_uuid": file.read().strip()}
    with open(f"{folder}/diskseq", encoding="ascii") as file:
        return {"disk_sequence": int(file.read())}


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def copies_alone(record: Record) -> list[str]:
    """The layers that keep copies below the device, if these copies are the only residue; else nothing.

    A field that is missing is an error: what the record does not contain is not assumed to be good.
    """
    job = record["job"]
    wiped = (
        (record["verdict"], record["exit_code"], record["error"]) == ("residue", RESIDUE, None)
        and (job["verdict"], job["error"]) == ("wiped", None)
        and job["residue"] == job["residue_unreadable"] == job["unreadable"] == []
        and job["surviving"] == {"bytes": 0, "runs": [], "more": False}
    )
    copies: list[str] = record["copies"]
    return copies if wiped else []
