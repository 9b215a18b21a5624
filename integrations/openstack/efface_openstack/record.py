"""What the records of a volume say, where efface's exit code alone is not enough."""

from __future__ import annotations

import json
import os
from typing import Any

from .command import CERTIFICATES, RESIDUE

Record = dict[str, Any]


def names() -> set[str]:
    return {name for name in os.listdir(CERTIFICATES) if name.endswith(".json")}


def written_since(before: set[str], volume_id: str) -> Record:
    """The one record of this volume that was not there before."""
    found = []
    for name in names() - before:
        with open(os.path.join(CERTIFICATES, name), encoding="utf-8") as file:
            record = json.load(file)
        if record["details"]["job"]["volume_id"] == volume_id:
            found.append(record)
    if len(found) != 1:
        raise ValueError(f"{len(found)} new records in {CERTIFICATES} are of the volume {volume_id}")
    return found[0]


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
