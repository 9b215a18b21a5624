"""Cinder's LVM driver, with efface in place of dd."""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NoReturn

from cinder import context, exception, interface, objects
from cinder.objects import fields
from cinder.volume import configuration
from cinder.volume.drivers import lvm
from oslo_concurrency import processutils
from oslo_config import cfg
from oslo_log import log as logging

from . import command, deferred, record, report, thin
from .options import OPTIONS
from .worker import Worker

LOG = logging.getLogger(__name__)

cfg.CONF.register_opts(OPTIONS, group=configuration.SHARED_CONF_GROUP)

# What ionice(1) calls -c0, -c2 and -c3; realtime (-c1) would take precedence over every tenant.
IO_CLASSES = {"0": "best-effort", "2": "best-effort", "3": "idle"}

# The inode of the host's own process namespace (PROC_PID_INIT_INO in linux/proc_ns.h).
HOST_PID_NAMESPACE = 0xEFFFFFFC
# To read the descriptors and the maps of all processes (linux/capability.h).
CAPABILITIES = {"CAP_DAC_READ_SEARCH": 2, "CAP_SYS_PTRACE": 19}

DETACHED = fields.VolumeAttachStatus.DETACHED

# How long a volume may be busy while no process of efface is known to work on it.
BUSY_SECONDS = 300
# Interval of the checks whether an efface that was left behind has ended.
LEFT_BEHIND_SECONDS = 10
PROGRESS_SECONDS = 60
# States of `efface jobs` in which a process has the device.
AT_WORK = ("running", "waiting")


@interface.volumedriver
class EffaceLVMDriver(lvm.LVMVolumeDriver):
    """LVM volumes that efface clears before they are removed."""

    VERSION = "1.0.0"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.configuration.append_config_values(OPTIONS)
        self._worker: Worker | None = None
        # The deletes that clear their volumes themselves, each in one of cinder's workers.
        self._in_workers = 0
        self._counting = threading.Lock()
        self._reported_full = False

    @classmethod
    def get_driver_options(cls) -> list[cfg.Opt]:
        return super().get_driver_options() + OPTIONS

    def check_for_setup_error(self) -> None:
        super().check_for_setup_error()
        io_priority(self.configuration.volume_clear_ionice)
        if self._option("efface_thin") == "discard" and self._option("efface_verify") == "none":
            # What was discarded and not read shows nothing; the filters do not admit it.
            raise exception.InvalidConfigurationValue(option="efface_verify", value="none")
        offloads = self._option("efface_zero_with") == "offload"
        if offloads and (self._option("efface_method") != "zero" or self._option("efface_skip_zeroes")):
            raise exception.InvalidConfigurationValue(option="efface_zero_with", value="offload")
        self._check_folders()
        self._check_program()
        if not cfg.CONF.volume_service_inithost_offload:
            LOG.warning(
                "Where deletes are pending, this service stays down after a restart until their volumes are "
                "cleared: set volume_service_inithost_offload = True in [DEFAULT]"
            )
        missing = missing_to_see_all()
        if missing and not self._option("efface_accept_unseen"):
            LOG.warning(
                "Volumes will be kept, since efface cannot see all that may use them: this service lacks %s. "
                "Run its container with them (--pid=host --cap-add=SYS_PTRACE,DAC_READ_SEARCH), or set "
                "efface_accept_unseen",
                " and ".join(missing),
            )
        self._start_worker()

    def _check_program(self) -> None:
        """What a delete needs of sudo, rootwrap, filters and binary, before the first delete."""
        binary = self._option("efface_binary")
        try:
            found = self._execute(*command.version(binary), run_as_root=True)[0].strip()
            self._execute(*command.jobs(binary, self._option("efface_metrics")), run_as_root=True)
        except processutils.ProcessExecutionError as error:
            reason = (
                f"efface {command.VERSION} cannot be run: {command.meaning(error.exit_code, error.stderr)}"
            )
            raise exception.VolumeBackendAPIException(data=reason) from error
        if found != f"efface {command.VERSION}":
            reason = (
                f"the driver is of version {command.VERSION}, and {binary} is {found}: install one version"
            )
            raise exception.VolumeBackendAPIException(data=reason)

    def _check_folders(self) -> None:
        metrics = [command.METRICS] if self._option("efface_metrics") else []
        for folder in (command.CERTIFICATES, command.JOBS, *metrics):
            if not os.path.isdir(folder):
                reason = f"there is no folder {folder}, which efface's package makes for root"
                raise exception.VolumeBackendAPIException(data=reason)
        if self._option("efface_sign") and (wrong := wrong_with_key(command.SIGNING_KEY)):
            raise exception.VolumeBackendAPIException(data=wrong)
        if self._accepts_copies() and not os.access(command.CERTIFICATES, os.R_OK | os.X_OK):
            reason = f"efface_copies = accept has to read the records in {command.CERTIFICATES}"
            raise exception.VolumeBackendAPIException(data=reason)

    def _start_worker(self) -> None:
        """Of what earlier deletes have left too, where the option is not set any more."""
        waiting = self._waiting()
        if waiting is None:
            reason = f"which volumes of {self.vg.vg_name} wait to be cleared cannot be read"
            raise exception.VolumeBackendAPIException(data=reason)
        if waiting:
            LOG.info("%s of earlier deletes wait to be cleared", amount(waiting))
        if self._worker is None and (waiting or self._workers_max() is not None):
            self._worker = Worker(self._waiting, self._clear_deleted)
            self._worker.start(self._option("efface_slots"))

    def _waiting(self) -> list[deferred.Deleted] | None:
        """None where that is not known, which is logged."""
        try:
            listed = self._execute(*command.volumes(self.vg.vg_name), run_as_root=True)[0]
            return deferred.parse(listed)
        except (processutils.ProcessExecutionError, ValueError, KeyError) as error:
            LOG.error("Which volumes of %s wait to be cleared cannot be read: %r", self.vg.vg_name, error)
            return None

    def _workers_max(self) -> int | None:
        """How many deletes may occupy cinder's workers; None for all of them."""
        return 0 if self._option("efface_deferred_delete") else self._option("efface_delete_workers")

    @contextmanager
    def _in_worker(self, volume: Any) -> Iterator[bool]:
        """Whether the volume is cleared before its delete ends, in the worker that cinder gave it."""
        most = self._workers_max()
        if most is not None and not self._can_wait(volume):
            most = None
        with self._counting:
            stays = most is None or self._in_workers < most
            self._in_workers += stays
        try:
            yield stays
        finally:
            with self._counting:
                self._in_workers -= stays

    def _can_wait(self, volume: Any) -> bool:
        """Whether all that the delete still needs cinder's database for is done, or is not needed."""
        clears = self.configuration.volume_clear != "none"
        if self.configuration.lvm_type == "thin":
            clears = clears and self._option("efface_thin") != "none"
        key_alone = is_encrypted(volume) and self._option("efface_encrypted") == "destroy_key"
        possible = self._worker is not None and clears and is_detached(volume) and not key_alone
        # An efface that an earlier service left behind works by the name that the volume has now.
        return bool(possible and not self._at_work(self.local_path(volume)))

    def _defer(self, volume: Any, is_snapshot: bool) -> None:
        name = self._escape_snapshot(volume["name"])
        if is_snapshot and self.configuration.lvm_type != "thin":
            self._split_snapshot(name)
        if is_encrypted(volume) and self._option("efface_encrypted") == "destroy_key_then_zero":
            self._destroy_key(volume)
        new_name = deferred.name_of(name)
        group = self.vg.vg_name
        try:
            # The tags first: under the new name it is never without them.
            self._execute(*command.tag(group, name, deferred.tags(volume)), run_as_root=True)
            self._execute(*command.rename(group, name, new_name), run_as_root=True)
        except processutils.ProcessExecutionError as error:
            self._keep(volume, f"{group}/{name} was not renamed to {new_name}: {error.stderr}", error)
        LOG.info("Volume %s is deleted, and waits to be cleared as %s/%s", volume["id"], group, new_name)
        if self._worker is not None:
            self._worker.wake()

    def _clear_deleted(self, deleted: deferred.Deleted) -> None:
        # After a restart of the host it need not be active.
        self.vg.activate_lv(deleted.name, is_snapshot=True)
        if self.configuration.lvm_type == "thin":
            self._clear_thin(deleted)
        else:
            self._clear_volume(deleted)
        self.vg.delete(deleted.name)
        LOG.info("Volume %s, deleted before, is cleared and removed: %s", deleted.id, deleted.name)

    def _update_volume_stats(self) -> None:
        super()._update_volume_stats()
        if self._option("efface_metrics"):
            self._write_metrics()
        waiting = self._waiting()
        [pool] = self._stats["pools"]
        if waiting is None:
            # As cinder says it of a capacity.
            pool["efface_waiting_volumes"] = pool["efface_waiting_gb"] = "unknown"
            return
        pool["efface_waiting_volumes"] = len(waiting)
        pool["efface_waiting_gb"] = waiting_gib = sum(each.size_bytes for each in waiting) / (1 << 30)
        is_full = waiting_gib > float(pool["free_capacity_gb"])
        if is_full and not self._reported_full:
            LOG.warning(
                "Volume group %s has %s GiB free, and %s that are deleted wait in it to be cleared",
                self.vg.vg_name,
                pool["free_capacity_gb"],
                amount(waiting),
            )
        self._reported_full = is_full

    def _write_metrics(self) -> None:
        words = command.jobs(self._option("efface_binary"), metrics=True)
        try:
            self._execute(*words, run_as_root=True)
        except processutils.ProcessExecutionError as error:
            reason = command.meaning(error.exit_code, error.stderr)
            LOG.warning("The metrics do not say what waits to be cleared: %s", reason)

    def manage_existing_object_get_size(self, existing_object: Any, existing_ref: Any, kind: str) -> Any:
        name = str(existing_ref.get("source-name", ""))
        if name.rpartition("/")[2].startswith(command.PREFIX):
            reason = "it is deleted, and waits to be cleared of what its tenant wrote"
            raise exception.ManageExistingInvalidReference(existing_ref=existing_ref, reason=reason)
        return super().manage_existing_object_get_size(existing_object, existing_ref, kind)

    def _delete_volume(self, volume: Any, is_snapshot: bool = False) -> None:
        with self._in_worker(volume) as stays:
            if stays:
                self._delete_now(volume, is_snapshot)
            else:
                self._defer(volume, is_snapshot)

    def _delete_now(self, volume: Any, is_snapshot: bool) -> None:
        # The stock gate lets no thin volume through to _clear_volume.
        clears = self.configuration.volume_clear != "none" and self._option("efface_thin") != "none"
        if self.configuration.lvm_type == "thin" and clears:
            self._clear_thin(volume)
        super()._delete_volume(volume, is_snapshot)

    def _clear_thin(self, volume: Any) -> None:
        """Also where `efface_thin` was set to none since: what waits was deleted to be cleared."""
        self.vg.activate_lv(self._escape_snapshot(volume["name"]), is_snapshot=True)
        how = self._option("efface_thin")
        if how in ("auto", "none"):
            how = self._thin_method(volume)
        wipe = self._wipe(volume, method="discard" if how == "discard" else self._option("efface_method"))
        self._clear(replace(wipe, skip_zeroes=False, offload=False), volume)

    def _thin_method(self, volume: Any) -> str:
        try:
            line = self._execute(*command.thin_pool(self.vg.vg_name), run_as_root=True)[0]
            pool = thin.Pool.parse(line)
        except (processutils.ProcessExecutionError, ValueError) as error:
            LOG.warning(
                "The thin pool of %s cannot be read, its volumes are overwritten: %r", self.vg.vg_name, error
            )
            return "overwrite"
        how = pool.method(device_bytes(self.local_path(volume)))
        if how == "discard" and not pool.zeroes:
            LOG.warning(
                "The thin pool of %s is full: volume %s is discarded, not overwritten: what it held stays "
                "in the pool until another volume overwrites it",
                self.vg.vg_name,
                volume["id"],
            )
        return how

    def _clear_volume(self, volume: Any, is_snapshot: bool = False) -> None:
        """Called where `volume_clear` is not none; what it raises keeps the volume."""
        if is_snapshot:
            self._split_snapshot(self._escape_snapshot(volume["name"]))
        how = self._option("efface_encrypted") if is_encrypted(volume) else "overwrite"
        if how == "destroy_key":
            copies = header_copies(volume)
            if not copies and self._destroy_key(volume):
                return
            if copies:
                LOG.info("Volume %s is overwritten: its key is also in %s", volume["id"], ", ".join(copies))
        elif how == "destroy_key_then_zero":
            self._destroy_key(volume)
        self._clear(self._wipe(volume, method=self._option("efface_method")), volume)

    def _clear(self, wipe: command.Wipe, volume: Any) -> None:
        """Wipes, unless a process that a killed service left behind has done it."""
        with self._progress(wipe.device):
            self._wait_for_left_behind(wipe.device)
        if certificate := self._cleared_by(wipe, volume):
            LOG.info(
                "Volume %s was cleared by a process that was left behind, and read again: %s",
                volume["id"],
                certificate,
            )
        else:
            self._efface(wipe.words(), volume)

    def _cleared_by(self, wipe: command.Wipe, volume: Any) -> str | None:
        """The certificate of a wipe since the volume was out of use, if the device still is what it says."""
        if not has_delete_time(volume):
            return None
        try:
            size = device_bytes(wipe.device)
            cleared = record.Cleared(
                method=wipe.method,
                verify=wipe.verify,
                size_bytes=size,
                area_bytes=int(wipe.size.removesuffix("MiB")) << 20 if wipe.size else size,
                marks=record.device_marks(wipe.device),
                boot_id=record.boot_id(),
                since=volume["terminated_at"],
            )
            known = record.of_volume(record.names(wipe.device), volume["id"])
            names = [name for name, each in known if cleared.fits(each)]
        except (OSError, ValueError, KeyError, TypeError) as error:
            LOG.info("Whether volume %s was cleared before is not known: %r", volume["id"], error)
            return None
        return next((name for name in names if self._still_fits(wipe, name)), None)

    def _still_fits(self, wipe: command.Wipe, certificate: str) -> bool:
        words = command.verify(wipe.binary, wipe.device, wipe.ionice, certificate)
        try:
            self._execute(*words, run_as_root=True)
        except processutils.ProcessExecutionError as error:
            reason = command.meaning(error.exit_code, error.stderr)
            LOG.warning("%s is wiped again: it is not what %s says: %s", wipe.device, certificate, reason)
            return False
        return True

    def _wipe(self, volume: Any, *, method: str) -> command.Wipe:
        order = self._order(volume)
        clear_mib = self.configuration.volume_clear_size
        # The size is the device's: cinder's own is rounded up to GiB.
        whole = clear_mib == 0 or clear_mib << 20 >= device_bytes(order["device"])
        verify = self._option("efface_verify")
        return command.Wipe(
            **order,
            method=method,
            # What was discarded and not read shows nothing.
            verify="standard" if method == "discard" and verify == "none" else verify,
            slots=str(self._option("efface_slots")),
            yields=f"{self._option('efface_yield_loss')}%" if self._option("efface_yield") else None,
            yield_min=self._option("efface_yield_min"),
            rate=self._option("efface_rate"),
            size=None if whole or method == "discard" else f"{clear_mib}MiB",
            metrics=self._option("efface_metrics"),
            skip_zeroes=self._option("efface_skip_zeroes"),
            offload=self._option("efface_zero_with") == "offload",
        )

    def _order(self, volume: Any) -> dict[str, Any]:
        return {
            "binary": self._option("efface_binary"),
            "device": self.local_path(volume),
            "volume_id": volume["id"],
            "tenant": volume["project_id"],
            "ionice": io_priority(self.configuration.volume_clear_ionice),
            "wait": str(BUSY_SECONDS),
            "shared_fs": is_detached(volume),
            "unseen": self._option("efface_accept_unseen"),
            "copies": self._accepts_copies(),
            "sign": self._option("efface_sign"),
            "ledger": self._option("efface_ledger"),
        }

    def _destroy_key(self, volume: Any) -> bool:
        """Whether there was a LUKS header."""
        order = command.DestroyKey(**self._order(volume), external_key=volume["encryption_key_id"])
        return self._efface(order.words(), volume, also_fine=[command.NOT_SUPPORTED]) == 0

    def _split_snapshot(self, name: str) -> None:
        """The store of a thick snapshot is in use as long as it is one."""
        if self.vg.lv_is_snapshot(name):
            self._execute(*command.split_snapshot(self.vg.vg_name, name), run_as_root=True)
            self.vg.activate_lv(name)

    def _efface(self, words: list[str], volume: Any, also_fine: Sequence[int] = ()) -> int:
        """Runs efface, while no other process of it works on the device; 0, or which of the others it was."""
        device = self.local_path(volume)
        with self._progress(device):
            while True:
                self._wait_for_left_behind(device)
                before = known_records(device)
                try:
                    self._execute(*words, run_as_root=True)
                    log_overridden(before, volume, device)
                    return 0
                except processutils.ProcessExecutionError as error:
                    if error.exit_code in also_fine:
                        return int(error.exit_code)
                    if error.exit_code == command.BUSY and self._at_work(device):
                        # It waited for the device's lock as long as that other one was left behind.
                        continue
                    residue = error.exit_code == command.RESIDUE and self._accepts_copies()
                    if residue and self._cleared_but_for_copies(before, volume, device):
                        return 0
                    reason = command.meaning(error.exit_code, error.stderr)
                    self._keep(volume, f"{device} was not cleared: {reason}", error)

    def _keep(self, volume: Any, reason: str, error: Exception) -> NoReturn:
        LOG.error("Volume %s is kept: %s", volume["id"], reason)
        report.kept(volume, reason)
        raise exception.VolumeBackendAPIException(data=reason) from error

    def _wait_for_left_behind(self, device: str) -> None:
        """A killed service leaves its efface behind: at work, or in the queue for a slot."""
        state = None
        while job := self._at_work(device):
            if job["state"] != state:
                state = job["state"]
                LOG.info("%s is left to an efface of an earlier service, which is %s", device, state)
            time.sleep(LEFT_BEHIND_SECONDS)

    def _cleared_but_for_copies(self, before: set[str], volume: Any, device: str) -> bool:
        """Whether the record says that only layers below the volume may hold what it held."""
        try:
            copies = record.copies_alone(record.written_since(before, volume["id"], device))
        except (OSError, ValueError, KeyError, TypeError) as error:
            LOG.error("Whether volume %s was cleared is not known from its record: %r", volume["id"], error)
            return False
        if copies:
            held = ", ".join(copies)
            LOG.warning("Volume %s is cleared, but what it held may still be on %s", volume["id"], held)
        return bool(copies)

    @contextmanager
    def _progress(self, device: str) -> Iterator[None]:
        """A line a minute, from what efface keeps of its jobs."""
        ended = threading.Event()

        def report() -> None:
            while not ended.wait(PROGRESS_SECONDS):
                job = self._at_work(device)
                if job:
                    LOG.info("%s: %s", device, progress(job))

        thread = threading.Thread(target=report, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _at_work(self, device: str) -> dict[str, Any] | None:
        words = command.jobs(self._option("efface_binary"))
        try:
            found = json.loads(self._execute(*words, run_as_root=True)[0])["jobs"]
        except (processutils.ProcessExecutionError, ValueError, KeyError) as error:
            LOG.warning("The progress of %s cannot be read: %s", device, error)
            return None
        at_work = (job for job in found if job.get("device") == device and job["state"] in AT_WORK)
        return next(at_work, None)

    def _accepts_copies(self) -> bool:
        return bool(self._option("efface_copies") == "accept")

    def _option(self, name: str) -> Any:
        return self.configuration.safe_get(name)


def io_priority(flag: str | None) -> str:
    """`-c2 -n7` as efface sets it for itself: a chained ionice would bypass the filters."""
    words = (flag or "-c0").split()
    kind, level = words[0].removeprefix("-c"), "4"
    if len(words) == 2:
        level = words[1].removeprefix("-n")
    if len(words) > 2 or kind not in IO_CLASSES or level not in list("01234567"):
        raise exception.InvalidConfigurationValue(option="volume_clear_ionice", value=flag)
    return "idle" if kind == "3" else f"{IO_CLASSES[kind]}:{level}"


def missing_to_see_all() -> list[str]:
    """What efface, as root beside this service, lacks to read every process of the host."""
    missing = []
    if os.stat("/proc/self/ns/pid").st_ino != HOST_PID_NAMESPACE:
        missing.append("the host's process namespace")
    with open("/proc/self/status", encoding="utf-8") as status:
        # What root can have at most.
        [bounding] = [int(line.split()[1], 16) for line in status if line.startswith("CapBnd:")]
    return missing + [name for name, bit in CAPABILITIES.items() if not bounding >> bit & 1]


def wrong_with_key(path: str) -> str | None:
    """What efface would refuse a signing key for, as far as its owner and mode say."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return f"there is no signing key: efface key new {path}"
    except OSError as error:
        return f"the signing key {path} cannot be examined: {error}"
    mode = stat.S_IMODE(found.st_mode)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != 0 or mode & 0o077:
        return (
            f"{path} has to be a file that root alone can read, and it belongs to user {found.st_uid} with "
            f"mode {mode:o}: make a new one if others could have read it"
        )
    return None


def device_bytes(device: str) -> int:
    try:
        name = os.path.basename(os.path.realpath(device, strict=True))
        with open(f"/sys/class/block/{name}/size", encoding="ascii") as file:
            return int(file.read()) * 512
    except OSError as error:
        reason = f"Volume device {device} is not there: {error}"
        raise exception.VolumeBackendAPIException(data=reason) from error


def progress(job: dict[str, Any]) -> str:
    if job["state"] == "waiting":
        return "waiting for a slot"
    percent = 100 * job["done_bytes"] // max(1, job["total_bytes"])
    left = "an unknown time" if job["seconds_left"] is None else f"about {job['seconds_left']} s"
    return f"step {job['step']} of {job['steps']} ({job['step_name']}), {percent} % of all, {left} left"


def known_records(device: str) -> set[str]:
    try:
        return record.names(device)
    except OSError:
        # With efface_copies = accept the service does not start without them.
        return set()


def log_overridden(before: set[str], volume: Any, device: str) -> None:
    """What would have kept the volume, had the refusal not been overridden."""
    try:
        overridden = record.overridden(record.written_since(before, volume["id"], device))
    except (OSError, ValueError, KeyError, TypeError) as error:
        LOG.debug("The record of volume %s is not read: %r", volume["id"], error)
        return
    for what, kind in overridden:
        LOG.warning("Volume %s is cleared although %s (--force %s)", volume["id"], what, kind)


def is_detached(volume: Any) -> bool:
    """Whether cinder knows of no server that has it; a snapshot never has one."""
    return isinstance(volume, objects.Snapshot) or volume["attach_status"] == DETACHED


def is_encrypted(volume: Any) -> bool:
    return not isinstance(volume, objects.Snapshot) and volume["encryption_key_id"] is not None


def amount(waiting: Sequence[deferred.Deleted]) -> str:
    return f"{len(waiting)} volumes of {sum(each.size_bytes for each in waiting) / (1 << 30):.2f} GiB"


def has_delete_time(volume: Any) -> bool:
    """Whether it is deleted since then: what a migration leaves behind may have been in use all the time."""
    if isinstance(volume, objects.Snapshot):
        return False
    return volume["status"] == "deleting" and volume["terminated_at"] is not None


def header_copies(volume: Any) -> list[str]:
    """What has the volume's LUKS header too, as far as cinder knows: there the key would survive."""
    copies = []
    if volume["source_volid"] or volume["snapshot_id"]:
        copies.append("the volume that it was cloned from")
    migration = volume["migration_status"] or ""
    if migration == "deleting" or migration.startswith("target:"):
        # What is deleted at the end of a migration, or of one that failed, is one of two places.
        copies.append("the other place of a migration")
    looked_at: set[str] = set()
    left = [volume]
    while left and not copies:
        each = left.pop()
        looked_at.add(each["id"])
        copies, clones = made_from(each)
        # What was made from a clone that is deleted has the header, too.
        left += [clone for clone in clones if clone["id"] not in looked_at]
    return copies


def made_from(volume: Any) -> tuple[list[str], list[Any]]:
    """What there is that was made from a volume itself, and all its clones, the deleted ones too."""
    now = context.get_admin_context()
    ever = context.get_admin_context(read_deleted="yes")
    clones = list(objects.VolumeList.get_all(ever, filters={"source_volid": volume["id"]}))
    # Not get_all_for_volume, which leaves the deleted ones out whatever the context asks for.
    snapshots = objects.SnapshotList.get_all(ever, filters={"volume_id": volume["id"]})
    of_snapshots = [
        clone
        for snapshot in snapshots
        for clone in objects.VolumeList.get_all(ever, filters={"snapshot_id": snapshot.id})
    ]
    found = {
        "a clone": any(not clone.deleted for clone in clones),
        "a snapshot": any(not snapshot.deleted for snapshot in snapshots),
        "a volume made from a snapshot": any(not clone.deleted for clone in of_snapshots),
        "a backup": bool(objects.BackupList.get_all_by_volume(now, volume["id"], volume["project_id"], {})),
    }
    return [copy for copy, there in found.items() if there], clones + of_snapshots
