"""NVMe drives as sysfs and nvme-cli show them: what is on one drive, and what the stock agent would do."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from ironic_python_agent import utils
from oslo_concurrency import processutils
from oslo_log import log

LOG = log.getLogger(__name__)

SYS = Path("/sys")

# Of Identify Controller (NVM Express base specification, figure 312).
OACS_FORMAT = 1 << 1
# Bit 0: a format reaches all namespaces; bit 1: one that erases does.
FNA_REACHES_ALL = 0b11
FNA_CRYPTO = 1 << 2

NOT_READ = (processutils.ProcessExecutionError, OSError, ValueError, KeyError, TypeError)

Fields = dict[str, Any]


def is_nvme(device: str) -> bool:
    """As the stock agent decides it."""
    return device.startswith("/dev/nvme")


def namespaces(device: str) -> dict[str, int]:
    """The block devices of the drive that this one is on, with the numbers of their namespaces.

    None where sysfs does not show them.
    """
    try:
        for subsystem in sorted((SYS / "class/nvme-subsystem").iterdir()):
            shown = shown_of(subsystem)
            if os.path.basename(device) in shown:
                return shown
    except (OSError, ValueError) as error:
        LOG.warning("which other namespaces the drive of %s has cannot be read: %s", device, error)
    return {}


def shown_of(subsystem: Path) -> dict[str, int]:
    # A namespace is below its controller, or below the subsystem as the head of hidden paths
    # (drivers/nvme/host/multipath.c).
    controllers = [each for each in subsystem.iterdir() if re.fullmatch(r"nvme\d+", each.name)]
    parents = {each.resolve() for each in (subsystem, *controllers)}
    blocks = [each for each in (SYS / "block").iterdir() if each.resolve().parent in parents]
    visible = [each for each in blocks if (each / "hidden").read_text().strip() == "0"]
    return {each.name: int((each / "nsid").read_text()) for each in visible}


def identify(device: str) -> Fields:
    """Identify Controller, which the stock agent decides by; empty where it cannot be read."""
    try:
        fields: Fields = json.loads(utils.execute("nvme", "id-ctrl", device, "-o", "json")[0])
        return {name: int(fields[name]) for name in ("oacs", "fna")}
    except NOT_READ as error:
        LOG.warning("what the drive of %s can do cannot be read: %s", device, error)
        return {}


def stock_would(device: str) -> str:
    """What the stock agent does with this device, as the rest of a sentence (hardware.py, `_nvme_erase`)."""
    fields = identify(device)
    if not fields:
        return "fail: nvme id-ctrl does not show what the drive can do"
    if not fields["oacs"] & OACS_FORMAT:
        return "fail: the drive does not have Format NVM"
    setting = 2 if fields["fna"] & FNA_CRYPTO else 1
    reach = "all namespaces of the drive" if fields["fna"] & FNA_REACHES_ALL else "this namespace"
    return f"run nvme format {device} -s {setting} -f, which erases {reach}, and rely on its exit code"
