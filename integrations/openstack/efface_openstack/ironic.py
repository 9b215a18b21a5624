"""Ironic's ramdisk agent, with efface in place of shred and of nvme format."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from multiprocessing.pool import ThreadPool
from typing import Any, Protocol

import requests
from ironic_python_agent import errors, hardware, utils
from oslo_concurrency import processutils
from oslo_config import cfg
from oslo_log import log
from oslo_utils import strutils

from . import nvme
from .command import (
    BUSY,
    FAILED,
    MEANINGS,
    MEANINGS_OF_PURGE,
    NOT_SUPPORTED,
    REFUSED,
    RESIDUE,
    SURVIVING,
    USAGE,
    meaning,
)

LOG = log.getLogger(__name__)

BINARY = "efface"
# Sent to the conductor with the ramdisk's logs, where it keeps them.
CERTIFICATES = "/var/lib/efface/certificates"
# A kernel parameter: each certificate is sent there too, by PUT to URL/NODE/FILE.
CERTIFICATES_URL = "efface-certificates-url"
SEND_SECONDS = 60
VIRTUAL_MEDIA = "/dev/disk/by-label/ir-vfd-dev"
# A purge that ends so has begun nothing.
NOT_BEGUN = (USAGE, REFUSED, NOT_SUPPORTED, BUSY)
# Where the stock agent would go on to shred. Of the others none is the drive's answer.
NOT_PURGED = (FAILED, REFUSED, NOT_SUPPORTED, RESIDUE, SURVIVING)

Node = dict[str, Any]
Record = dict[str, Any]


class Disk(Protocol):
    """What is used of the agent's BlockDevice."""

    name: str
    size: int
    serial: str | None
    wwn: str | None


@dataclass(frozen=True)
class Run:
    """What a run of efface on one disk came to."""

    exit_code: int
    # Why it failed, and why its certificate is not where it should be.
    reason: str
    problems: list[str]
    # Of its certificate; None where there is none.
    record: Record | None


@dataclass
class Drive:
    """The drive of one or several disks in a step."""

    # The step erases all of its several namespaces, and it has no others.
    all_namespaces: bool = False
    # Why that is not so.
    why_not: str = ""
    # The last one that was begun.
    purge: Run | None = None


# That of the disk that is being erased in this thread; none where another manager's step erases it.
DRIVE: ContextVar[Drive | None] = ContextVar("DRIVE", default=None)

Groups = list[tuple[Drive, list[Disk]]]


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
        if nvme.is_nvme(block_device.name):
            if info.get("agent_enable_nvme_secure_erase", True):
                return purge_or_wipe(node, block_device)
        elif info.get("agent_enable_ata_secure_erase", True) and ata_security(block_device):
            # Nothing was written: the stock manager has the drive erase itself.
            raise errors.IncompatibleHardwareMethodError()
        return wipe(node, block_device, overwriting(info, block_device))

    def erase_devices(self, node: Node, ports: list[Any]) -> dict[str, Any]:
        """As the agent's own, but where one disk fails the error names what was erased, too."""

        def erase(disk: Disk) -> Any:
            return hardware.dispatch_to_managers("erase_block_device", node=node, block_device=disk)

        return of_all(node, erase, by_drive, hardware.safety_check_block_device)

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

        return of_all(node, erase, one_by_one)

    def collect_system_logs(self, io_dict: dict[str, Any], file_list: list[str]) -> None:
        if os.path.isdir(CERTIFICATES):
            file_list.append(CERTIFICATES)


def of_all(
    node: Node,
    erase: Callable[[Disk], Any],
    grouped: Callable[[Node, list[Disk]], Groups],
    check: Callable[[Node, str], None] | None = None,
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

    def results_of(group: tuple[Drive, list[Disk]]) -> list[Any]:
        drive, members = group
        DRIVE.set(drive)
        return [(disk.name, result(disk)) for disk in members]

    groups = grouped(node, disks)
    at_once = node.get("driver_internal_info", {}).get("disk_erasure_concurrency", 1)
    with ThreadPool(max(1, min(at_once, len(groups)))) as pool:
        results = dict(pair for pairs in pool.map(results_of, groups, chunksize=1) for pair in pairs)
    failed = [getattr(each, "details", str(each)) for each in results.values() if isinstance(each, Exception)]
    if failed:
        # Their ids alone: the conductor keeps the error in one field of its database.
        erased = [f"{name} (certificate {each['id']})" for name, each in results.items() if is_record(each)]
        raise errors.BlockDeviceEraseError("; ".join([*failed, *(f"{each} was erased" for each in erased)]))
    return results


def one_by_one(node: Node, disks: list[Disk]) -> Groups:
    return [(Drive(), [disk]) for disk in disks]


def by_drive(node: Node, disks: list[Disk]) -> Groups:
    """The disks by their drives, since a drive is purged once."""
    info = node.get("driver_internal_info", {})
    if not info.get("agent_enable_nvme_secure_erase", True):
        return one_by_one(node, disks)
    groups: dict[tuple[str, ...], tuple[dict[str, int], list[Disk]]] = {}
    for disk in disks:
        shown = nvme.namespaces(disk.name) if nvme.is_nvme(disk.name) else {}
        key = tuple(sorted(shown)) or (disk.name,)
        groups.setdefault(key, (shown, []))[1].append(disk)
    return [(drive_of(info, shown, members), members) for shown, members in groups.values()]


def drive_of(info: dict[str, Any], shown: dict[str, int], members: list[Disk]) -> Drive:
    """That of these disks, by what sysfs shows of it."""
    if len(shown) < 2:
        return Drive()
    erased = {os.path.basename(disk.name) for disk in members if not stays(info, disk)}
    others = sorted(set(shown) - erased)
    why_not = f"this step does not erase {', '.join(others)}" if others else beyond(erased, members[0])
    return Drive(all_namespaces=not why_not, why_not=why_not)


def beyond(names: set[str], disk: Disk) -> str:
    """What a purge of this drive would reach beside these block devices, or may; only queries are sent."""
    words = ["--or-clear", "--all-namespaces", "--dry-run", "--json", "--", disk.name]
    try:
        outline = json.loads(utils.execute(BINARY, "purge", *words)[0])
        others = sorted(nodes(outline) - names)
        too = [f"It reaches {', '.join(others)}, too."] if others else []
        return " ".join([*too, *outline["limitations"]])
    except processutils.ProcessExecutionError as error:
        return meaning(error.exit_code, error.stderr, MEANINGS_OF_PURGE)
    except nvme.NOT_READ as error:
        return f"what it would reach is not known: {error}"


def nodes(purge: dict[str, Any]) -> set[str]:
    """The block devices of the drive of a purge."""
    return {node["name"] for namespace in purge["scope"]["namespaces"] for node in namespace["nodes"]}


def stays(info: dict[str, Any], disk: Disk) -> bool:
    try:
        return skipped(info, disk) is not None
    except errors.BlockDeviceEraseError:
        return True


def is_record(result: Any) -> bool:
    return isinstance(result, dict) and "id" in result


def skipped(info: dict[str, Any], disk: Disk) -> str | None:
    """Why a disk is left as it is, where that is what the operator wants."""
    if os.path.realpath(VIRTUAL_MEDIA) == disk.name:
        return "virtual media"
    try:
        read_only = (nvme.SYS / "block" / os.path.basename(disk.name) / "ro").read_text().strip() == "1"
    except OSError as error:
        raise erase_error(disk, f"whether it is read-only cannot be read: {error}") from error
    return "read-only" if read_only and info.get("agent_erase_skip_read_only", False) else None


def ata_security(disk: Disk) -> bool:
    """Whether hdparm lists the Security feature set as supported; no ATA drive, no such list."""
    try:
        answer = utils.execute("hdparm", "-I", disk.name)[0]
    except (processutils.ProcessExecutionError, OSError):
        return False
    return "supported" in [line.strip() for line in answer.partition("Security:")[2].splitlines()]


def overwriting(info: dict[str, Any], disk: Disk) -> list[str]:
    """What the conductor's shred options ask for: a number of random passes, and zeroes after them."""
    random = int(info.get("agent_erase_devices_iterations", 1))
    zeroes = info.get("agent_erase_devices_zeroize", True)
    if random == 0 and not zeroes:
        raise erase_error(disk, "no iterations and no zeroes would overwrite nothing")
    verify = ["--verify", "standard"]
    if random == 0:
        return ["--method", "zero", *verify]
    return ["--passes", ",".join(["random"] * random), *(["--final-zero"] if zeroes else []), *verify]


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


def purge_or_wipe(node: Node, disk: Disk) -> Record:
    """Has the drive erase itself, and overwrites it where that fails and the conductor allows it."""
    info = node.get("driver_internal_info", {})
    stock = nvme.stock_would(disk.name)
    LOG.info("%s: efface purge; the stock agent would %s", disk.name, stock)
    purge = purged(node, disk, DRIVE.get() or Drive())
    if purge.exit_code not in NOT_PURGED:
        return {**certified(disk, purge), "stock": stock}
    if not info.get("agent_continue_if_secure_erase_failed", False):
        reason = "agent_continue_if_secure_erase_failed does not allow to overwrite it"
        raise erase_error(disk, "; ".join([purge.reason, *purge.problems, reason]))
    LOG.warning("%s was not purged, and is overwritten: %s", disk.name, purge.reason)
    wipe = run(node, disk, "wipe", overwriting(info, disk))
    not_purged = {
        "exit_code": purge.exit_code,
        "reason": purge.reason,
        "certificate": (purge.record or {}).get("id"),
    }
    before = f"it was not purged ({purge.reason}), and overwriting it failed, too: "
    return {**certified(disk, wipe, before), "stock": stock, "not_purged": not_purged}


def purged(node: Node, disk: Disk, drive: Drive) -> Run:
    """A purge that was begun for another disk of the drive is this disk's, too, where it reached it."""
    if drive.purge and reached(drive.purge, disk):
        return drive.purge
    # A format that is Clear counts for the stock agent; the record says what was achieved.
    all_namespaces = ["--all-namespaces"] if drive.all_namespaces else []
    purge = run(node, disk, "purge", ["--or-clear", *all_namespaces])
    drive.purge = purge if purge.exit_code not in NOT_BEGUN else None
    if purge.exit_code == REFUSED and drive.why_not:
        return replace(purge, reason=f"{purge.reason}; --all-namespaces was not given: {drive.why_not}")
    return purge


def reached(purge: Run, disk: Disk) -> bool:
    """One whose record does not say may have."""
    said = (purge.record or {}).get("purge")
    if not said:
        return True
    return said["reach"] == "subsystem" and os.path.basename(disk.name) in nodes(said)


def wipe(node: Node, disk: Disk, how: list[str]) -> Record:
    return certified(disk, run(node, disk, "wipe", how))


def run(node: Node, disk: Disk, command: str, how: list[str]) -> Run:
    """Runs efface; its certificate is kept for each device, of those that failed too."""
    os.makedirs(CERTIFICATES, exist_ok=True)
    certificate = os.path.join(CERTIFICATES, f"{os.path.basename(disk.name)}-{uuid.uuid4()}.json")
    keep = ["--certificate-to", certificate, "--yes", "--quiet"]
    exit_code, reason = 0, ""
    try:
        utils.execute(BINARY, command, *how, *identity(disk), *keep, "--", disk.name)
    except processutils.ProcessExecutionError as error:
        meanings = MEANINGS_OF_PURGE if command == "purge" else MEANINGS
        exit_code, reason = error.exit_code, meaning(error.exit_code, error.stderr, meanings)
    problems, record = not_sent(node, certificate), None
    try:
        with open(certificate, encoding="utf-8") as file:
            record = json.load(file)
    except (OSError, ValueError) as error:
        if exit_code == 0:
            problems.insert(0, f"there is no certificate: {error}")
    return Run(exit_code, reason, problems, record)


def certified(disk: Disk, done: Run, before: str = "") -> Record:
    """The record of a run that succeeded."""
    if done.exit_code != 0:
        raise erase_error(disk, before + "; ".join([done.reason, *done.problems]))
    if done.record is None:
        raise erase_error(disk, before + done.problems[0])
    if done.problems:
        raise erase_error(disk, f"{before}it is {done.record['verdict']}, but {done.problems[0]}")
    return done.record


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
