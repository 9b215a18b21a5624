"""Volumes that are deleted for their tenants and wait to be cleared (efface_deferred_delete).

The list of them is the volume group itself: they have another name, and tags that say whose they were. So it
outlives every restart, and nothing has to be kept equal to it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from .command import PREFIX
from .filters import UUID


@dataclass(frozen=True, kw_only=True)
class Deleted:
    """Read by item, as a volume of cinder's is: cinder itself knows it no longer."""

    name: str
    size_bytes: int
    id: str
    project_id: str
    # Out of use from then on.
    terminated_at: datetime
    status: str = "deleting"
    attach_status: str = "detached"
    # What was to be done with its key was done before it was renamed.
    encryption_key_id: None = None

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)


def name_of(logical_volume: str) -> str:
    """Of a volume or snapshot, by the UUID in its name, which no other in the group has."""
    found = re.search(UUID, logical_volume)
    if not found:
        raise ValueError(f"there is no UUID in the name {logical_volume}")
    return PREFIX + found[0]


def tags(volume: Any) -> list[str]:
    now = datetime.now(timezone.utc).timestamp()
    return [
        f"efface.volume={volume['id']}",
        f"efface.project={volume['project_id']}",
        f"efface.since={now:.6f}",
    ]


def parse(report: str) -> list[Deleted]:
    """What waits, the oldest first, from the lines of `command.volumes`."""
    found = [each for line in report.splitlines() if (each := _parse_line(line))]
    return sorted(found, key=lambda each: each.terminated_at)


def _parse_line(line: str) -> Deleted | None:
    name, size, tags = line.strip().split("|")
    fields = dict(tag.split("=", 1) for tag in tags.split(",") if tag.startswith("efface."))
    if not name.startswith(PREFIX) or not fields:
        return None
    return Deleted(
        name=name,
        size_bytes=int(size),
        id=fields["efface.volume"],
        project_id=fields["efface.project"],
        terminated_at=datetime.fromtimestamp(float(fields["efface.since"]), timezone.utc),
    )
