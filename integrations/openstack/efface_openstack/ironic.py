"""Ironic's ramdisk agent, with efface in place of shred."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable
from multiprocessing.pool import ThreadPool
from typing import Any, Protocol

import requests
from ironic_python_agent import errors, hardware, utils
from oslo_concurrency import processutils
from oslo_config import cfg
from oslo_log import log
from oslo_utils import strutils

from .command import meaning

LOG = log.getLogger(__name__)

BINARY = "efface"
# Sent to the conductor with the ramdisk's logs, where it keeps them.
CERTIFICATES = "/var/lib/efface/certificates"
# A kernel parameter: each certificate is sent there too, by PUT to URL/NODE/FILE.
CERTIFICATES_URL = "efface-certificates-url"
SEND_SECONDS = 60
VIRTUAL_MEDIA = "/dev/disk/by-label/ir-vfd-dev"
# Bit 1 of the controller's OACS field: the Format NVM command (NVM Express base specification, figure 312).
NVME_FORMAT = 1 << 1

Node = dict[str, Any]


class Disk(Protocol):
    """What is used of the agent's BlockDevice."""

    name: str
    size: int
    serial: str | None
    wwn: str | None


class EffaceHardwareManager(hardware.HardwareManager):
    """Erases block devices; everything else is left to the managers below it."""

    HARDWARE_MANAGER_NAME = "EffaceHardwareManager"
    # Must not change while a node is being cleaned.
    HARDWARE_MANAGER_VERSION = "1"

    def evaluate_hardware_support(self) -> int:
        if shutil.which(BINARY) is None:
            LOG.warning("%s is not in this ramdisk: the stock agent erases the disks", BINARY)
            return hardware.HardwareSupport.NONE
        return hardware.HardwareSupport.SERVICE_PROVIDER

    def get_clean_steps(self, node: Node, ports: list[Any]) -> list[dict[str, Any]]:
        return [
            {
                "step": "efface_erase_devices",
                # By hand only: automated cleaning has erase_devices, which comes here as well.
                "priority": 0,
                "interface": "deploy",
                "reboot_requested": False,
                "abortable": True,
                "argsinfo": {
                    "efface_method": {"description": "As efface wipe --method (zero)", "required": False},
                    "efface_verify": {"description": "As efface wipe --verify (standard)", "required": False},
                    "efface_shared_fs": {
                        "description": "true: erase file systems that other hosts may have mounted",
                        "required": False,
                    },
                },
            }
        ]

    def erase_block_device(self, node: Node, block_device: Disk) -> dict[str, Any]:
        """The certificate of the device, or why it was skipped."""
        info = node.get("driver_internal_info", {})
        if reason := skipped(info, block_device):
            return {"skipped": reason}
        if drive_erases(info, block_device):
            # Nothing was written: the stock manager has the drive erase itself.
            raise errors.IncompatibleHardwareMethodError()
        return wipe(node, block_device, [*passes(info, block_device), "--verify", "standard"])

    def erase_devices(self, node: Node, ports: list[Any]) -> dict[str, Any]:
        """As the agent's own, but where one disk fails the error names what was erased, too."""

        def erase(disk: Disk) -> Any:
            return hardware.dispatch_to_managers("erase_block_device", node=node, block_device=disk)

        return of_all(node, erase, hardware.safety_check_block_device)

    def efface_erase_devices(
        self,
        node: Node,
        ports: list[Any],
        efface_method: str = "zero",
        efface_verify: str = "standard",
        efface_shared_fs: bool = False,
    ) -> dict[str, Any]:
        """All devices but those of the skip list, with a method that was chosen by hand.

        The arguments carry a prefix since the agent's dispatcher has a parameter `method` of its own.
        """
        info = node.get("driver_internal_info", {})
        how = ["--method", efface_method, "--verify", efface_verify]
        if strutils.bool_from_string(efface_shared_fs, strict=True):
            how += ["--force", "shared-fs"]

        def erase(disk: Disk) -> dict[str, Any]:
            reason = skipped(info, disk)
            return {"skipped": reason} if reason else wipe(node, disk, how)

        return of_all(node, erase)

    def collect_system_logs(self, io_dict: dict[str, Any], file_list: list[str]) -> None:
        if os.path.isdir(CERTIFICATES):
            file_list.append(CERTIFICATES)


def of_all(
    node: Node, erase: Callable[[Disk], Any], check: Callable[[Node, str], None] | None = None
) -> dict[str, Any]:
    """What became of each disk, by its name; an error if one was not erased, after all were tried."""
    disks = hardware.dispatch_to_managers("list_block_devices_check_skip_list", node)
    if check:
        for disk in disks:
            check(node, disk.name)

    def result(disk: Disk) -> Any:
        try:
            return erase(disk)
        except Exception as error:
            return error

    at_once = node.get("driver_internal_info", {}).get("disk_erasure_concurrency", 1)
    with ThreadPool(max(1, min(at_once, len(disks)))) as pool:
        results = dict(zip((disk.name for disk in disks), pool.map(result, disks, chunksize=1), strict=True))
    failed = [getattr(each, "details", str(each)) for each in results.values() if isinstance(each, Exception)]
    if failed:
        # Their ids alone: the conductor keeps the error in one field of its database.
        erased = [f"{name} (certificate {each['id']})" for name, each in results.items() if is_record(each)]
        raise errors.BlockDeviceEraseError("; ".join([*failed, *(f"{each} was erased" for each in erased)]))
    return results


def is_record(result: Any) -> bool:
    return isinstance(result, dict) and "id" in result


def skipped(info: dict[str, Any], disk: Disk) -> str | None:
    """Why a disk is left as it is, where that is what the operator wants."""
    if os.path.realpath(VIRTUAL_MEDIA) == disk.name:
        return "virtual media"
    try:
        with open(f"/sys/block/{os.path.basename(disk.name)}/ro", encoding="ascii") as file:
            read_only = file.read().strip() == "1"
    except OSError as error:
        raise erase_error(disk, f"whether it is read-only cannot be read: {error}") from error
    return "read-only" if read_only and info.get("agent_erase_skip_read_only", False) else None


def drive_erases(info: dict[str, Any], disk: Disk) -> bool:
    """Whether the drive can erase itself, and the stock manager has to start it."""
    if not disk.name.startswith("/dev/nvme"):
        return info.get("agent_enable_ata_secure_erase", True) and ata_security(disk)
    if not info.get("agent_enable_nvme_secure_erase", True):
        return False
    try:
        answer = utils.execute("nvme", "id-ctrl", disk.name, "-o", "json")[0]
        if json.loads(answer)["oacs"] & NVME_FORMAT:
            return True
        reason = "the drive does not support Format NVM"
    except (processutils.ProcessExecutionError, OSError, ValueError, KeyError) as error:
        reason = f"what the drive can do cannot be read: {error}"
    if info.get("agent_continue_if_secure_erase_failed", False):
        return False
    raise erase_error(
        disk, f"{reason}, and agent_continue_if_secure_erase_failed does not allow to overwrite it"
    )


def ata_security(disk: Disk) -> bool:
    """Whether hdparm lists the Security feature set as supported; no ATA drive, no such list."""
    try:
        answer = utils.execute("hdparm", "-I", disk.name)[0]
    except (processutils.ProcessExecutionError, OSError):
        return False
    return "supported" in [line.strip() for line in answer.partition("Security:")[2].splitlines()]


def passes(info: dict[str, Any], disk: Disk) -> list[str]:
    """What the conductor's shred options ask for: a number of random passes, and zeroes after them."""
    random = int(info.get("agent_erase_devices_iterations", 1))
    zeroes = info.get("agent_erase_devices_zeroize", True)
    if random == 0 and not zeroes:
        raise erase_error(disk, "no iterations and no zeroes would overwrite nothing")
    if random == 0:
        return ["--method", "zero"]
    return ["--passes", ",".join(["random"] * random), *(["--final-zero"] if zeroes else [])]


def identity(disk: Disk) -> list[str]:
    """The identity that the agent expects: efface refuses another disk at this path."""
    words = ["--expect-size", str(disk.size)]
    wwn = (disk.wwn or "").lower()
    # Where a SCSI disk reports no serial number, udev gives its WWN as one.
    if disk.serial and disk.serial.lower() != wwn.removeprefix("0x"):
        words += ["--expect-serial", disk.serial]
    if wwn:
        words += ["--expect-wwn", wwn]
    return words


def wipe(node: Node, disk: Disk, how: list[str]) -> dict[str, Any]:
    """Runs efface; its certificate is kept for each device, of those that failed too."""
    os.makedirs(CERTIFICATES, exist_ok=True)
    certificate = os.path.join(CERTIFICATES, f"{os.path.basename(disk.name)}-{uuid.uuid4()}.json")
    keep = ["--certificate-to", certificate, "--yes", "--quiet"]
    try:
        utils.execute(BINARY, "wipe", *how, *identity(disk), *keep, "--", disk.name)
    except processutils.ProcessExecutionError as error:
        reason = meaning(error.exit_code, error.stderr)
        raise erase_error(disk, "; ".join([reason, *not_sent(node, certificate)])) from error
    try:
        with open(certificate, encoding="utf-8") as file:
            record: dict[str, Any] = json.load(file)
    except (OSError, ValueError) as error:
        raise erase_error(disk, f"there is no certificate: {error}") from error
    if problems := not_sent(node, certificate):
        raise erase_error(disk, f"it is {record['verdict']}, but {problems[0]}")
    return record


def not_sent(node: Node, certificate: str) -> list[str]:
    """Why the certificate is not at the URL, where one is given."""
    url = utils.get_agent_params().get(CERTIFICATES_URL)
    if not url or not os.path.exists(certificate):
        return []
    verify, client = utils.get_ssl_client_options(cfg.CONF)
    to = f"{url.rstrip('/')}/{node['uuid']}/{os.path.basename(certificate)}"
    try:
        with open(certificate, "rb") as file:
            # A redirect would be followed without the content.
            answer = requests.put(
                to, data=file, verify=verify, cert=client, timeout=SEND_SECONDS, allow_redirects=False
            )
    except (requests.RequestException, OSError) as error:
        return [f"its certificate was not received: {error}"]
    if not 200 <= answer.status_code < 300:
        return [f"its certificate was not received: {to} answers {answer.status_code} {answer.reason}"]
    return []


def erase_error(disk: Disk, reason: str) -> errors.BlockDeviceEraseError:
    """`details` is all that the operator sees."""
    LOG.error("%s was not erased: %s", disk.name, reason)
    return errors.BlockDeviceEraseError(f"{disk.name} (serial {disk.serial}) was not erased: {reason}")
