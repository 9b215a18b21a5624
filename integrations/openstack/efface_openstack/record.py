"""What the records of a volume say, where efface's exit code alone is not enough."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any

from .command import CERTIFICATES, RESIDUE

Record = dict[str, Any]

# Of a device's name, the letters that its certificates' names begin with.
NAME_MAX = 64


def names(device: str) -> set[str]:
    """Of the certificates of a device, and of those whose names begin as its name does."""
    start = f"efface-{re.sub('[^A-Za-z0-9_.-]', '_', os.path.basename(device))[:NAME_MAX]}"
    return {name for name in os.listdir(CERTIFICATES) if name.startswith(start) and name.endswith(".json")}


def of_volume(names: set[str], volume_id: str) -> Iterator[Record]:
    for name in names:
        with open(os.path.join(CERTIFICATES, name), encoding="utf-8") as file:
            record = json.load(file)
        # One that was made by hand names no volume.
        if (record["details"].get("job") or {}).get("volume_id") == volume_id:
            yield record


def written_since(before: set[str], volume_id: str, device: str) -> Record:
    """The one record of this volume that was not there before."""
    found = list(of_volume(names(device) - before, volume_id))
    if len(found) != 1:
        raise ValueError(f"{len(found)} new records in {CERTIFICATES} are of the volume {volume_id}")
    return found[0]


def overridden(record: Record) -> list[tuple[str, str]]:
    """The refusals that would have kept the volume, and the kind of each."""
    return [(refusal["what"], refusal["force"]) for refusal in record["findings"]["forced"]]


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
