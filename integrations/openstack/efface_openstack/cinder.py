"""Cinder's LVM driver, with efface in place of dd."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cinder import context, exception, interface, objects
from cinder.volume import configuration
from cinder.volume.drivers import lvm
from oslo_concurrency import processutils
from oslo_config import cfg
from oslo_log import log as logging

from . import command

LOG = logging.getLogger(__name__)

OPTIONS = [
    cfg.StrOpt(
        "efface_method",
        default="zero",
        choices=["zero", "shred", "random"],
        help="What a volume is overwritten with before it is removed.",
    ),
    cfg.StrOpt(
        "efface_verify",
        default="standard",
        choices=["none", "standard", "high", "full"],
        help="How much is read back; standard says with 99 % confidence that at most 0.1 % differs.",
    ),
    cfg.StrOpt(
        "efface_rate",
        regex="^[0-9]+[KMGT]iB/s$",
        help="At most so much a second on each volume, as in 200MiB/s, in place of efface_yield.",
    ),
    cfg.BoolOpt(
        "efface_yield",
        default=True,
        help="Use only what other tenants of the same disks leave over.",
    ),
    cfg.IntOpt(
        "efface_slots",
        default=2,
        min=1,
        help="At most so many volumes at once on this host; the others wait in order.",
    ),
    cfg.StrOpt(
        "efface_encrypted",
        default="overwrite",
        choices=[
            ("overwrite", "Overwrite all of it, as any other volume."),
            ("destroy_key_then_zero", "Destroy the LUKS header and its keys first, then overwrite."),
            ("destroy_key", "Only destroy the keys, where no clone, snapshot or backup has them too."),
        ],
        help="What is done with an encrypted volume. Without a LUKS header it is overwritten.",
    ),
    cfg.StrOpt(
        "efface_thin",
        default="none",
        choices=[
            ("none", "Nothing, as the stock driver."),
            ("discard", "Discard the volume before it is removed, and look that it reads as zeroes."),
            ("overwrite", "Overwrite what is mapped of it by efface_method, and discard it then."),
        ],
        help="What is done with a thin volume, of which the stock driver clears nothing.",
    ),
    cfg.StrOpt(
        "efface_certificate_dir",
        default="/var/lib/efface/certificates",
        help="Folder for a record of each volume, which root writes to.",
    ),
    cfg.StrOpt(
        "efface_state_dir",
        default="/var/lib/efface/jobs",
        help="Folder for what survives a restart, which root writes to.",
    ),
    cfg.StrOpt("efface_binary", default="efface", help="The program, as the rootwrap filters name it."),
]

cfg.CONF.register_opts(OPTIONS, group=configuration.SHARED_CONF_GROUP)

# What ionice(1) calls -c0 to -c3.
IO_CLASSES = {"0": "best-effort", "1": "realtime", "2": "best-effort", "3": "idle"}

# So long a volume may be busy with nobody known to work on it.
BUSY_SECONDS = 300
# So often it is looked whether an efface that was left behind has ended.
LEFT_BEHIND_SECONDS = 10
PROGRESS_SECONDS = 60


@interface.volumedriver
class EffaceLVMDriver(lvm.LVMVolumeDriver):
    """LVM volumes that efface clears before they are removed."""

    VERSION = "1.0.0"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.configuration.append_config_values(OPTIONS)

    @classmethod
    def get_driver_options(cls) -> list[cfg.Opt]:
        return super().get_driver_options() + OPTIONS

    def check_for_setup_error(self) -> None:
        super().check_for_setup_error()
        io_priority(self.configuration.volume_clear_ionice)
        for option in ("efface_certificate_dir", "efface_state_dir"):
            if not os.path.isdir(self._option(option)):
                raise exception.InvalidConfigurationValue(option=option, value=self._option(option))

    def _delete_volume(self, volume: Any, is_snapshot: bool = False) -> None:
        # The stock gate lets no thin volume through to _clear_volume.
        if self.configuration.lvm_type == "thin" and self.configuration.volume_clear != "none":
            self._clear_thin(volume)
        super()._delete_volume(volume, is_snapshot)

    def _clear_thin(self, volume: Any) -> None:
        how = self._option("efface_thin")
        if how == "none":
            return
        self.vg.activate_lv(self._escape_snapshot(volume["name"]), is_snapshot=True)
        method = "discard" if how == "discard" else self._option("efface_method")
        self._efface(self._wipe(volume, method=method).words(), volume)

    def _clear_volume(self, volume: Any, is_snapshot: bool = False) -> None:
        """Called where `volume_clear` is not none; what it raises keeps the volume."""
        if is_snapshot:
            self._split_snapshot(self._escape_snapshot(volume["name"]))
        prefer_key = False
        encrypted = not is_snapshot and volume["encryption_key_id"] is not None
        if encrypted and self._option("efface_encrypted") == "destroy_key_then_zero":
            self._destroy_key(volume)
        elif encrypted and self._option("efface_encrypted") == "destroy_key":
            copies = header_copies(volume)
            prefer_key = not copies
            if copies:
                LOG.info("Volume %s is overwritten: its key is also in %s", volume["id"], ", ".join(copies))
        wipe = self._wipe(volume, method=self._option("efface_method"), prefer_key=prefer_key)
        self._efface(wipe.words(), volume)

    def _wipe(self, volume: Any, *, method: str, prefer_key: bool = False) -> command.Wipe:
        order = self._order(volume)
        clear_bytes = self.configuration.volume_clear_size << 20
        # The size is the device's: cinder's own is rounded up to GiB.
        whole = clear_bytes == 0 or clear_bytes >= device_bytes(order["device"])
        return command.Wipe(
            **order,
            method=method,
            verify=self._option("efface_verify"),
            slots=str(self._option("efface_slots")),
            state_dir=self._option("efface_state_dir"),
            yields=self._option("efface_yield"),
            rate=self._option("efface_rate"),
            size=None if whole or method == "discard" else str(clear_bytes),
            prefer_key=prefer_key,
        )

    def _order(self, volume: Any) -> dict[str, str]:
        return {
            "binary": self._option("efface_binary"),
            "device": self.local_path(volume),
            "volume_id": volume["id"],
            "tenant": volume["project_id"],
            "ionice": io_priority(self.configuration.volume_clear_ionice),
            "wait": str(BUSY_SECONDS),
            "certificate_dir": self._option("efface_certificate_dir"),
        }

    def _destroy_key(self, volume: Any) -> None:
        order = command.DestroyKey(**self._order(volume), external_key=volume["encryption_key_id"])
        self._efface(order.words(), volume, also_fine=command.NOT_SUPPORTED)

    def _split_snapshot(self, name: str) -> None:
        """The store of a thick snapshot is in use as long as it is one."""
        if self.vg.lv_is_snapshot(name):
            self._execute(*command.split_snapshot(self.vg.vg_name, name), run_as_root=True)
            self.vg.activate_lv(name)

    def _efface(self, words: list[str], volume: Any, also_fine: int = 0) -> None:
        """Runs it, after the one that a service left behind when it was killed in the middle of it."""
        device = self.local_path(volume)
        with self._progress(device):
            if job := self._running(device):
                LOG.info(
                    "%s is still cleared by process %d, which was left behind: waiting", device, job["pid"]
                )
            while self._running(device):
                time.sleep(LEFT_BEHIND_SECONDS)
            try:
                self._execute(*words, run_as_root=True, check_exit_code=[0, also_fine])
            except processutils.ProcessExecutionError as error:
                reason = f"{device} was not cleared: {command.meaning(error.exit_code, error.stderr)}"
                LOG.error("Volume %s is kept: %s", volume["id"], reason)
                raise exception.VolumeBackendAPIException(data=reason) from error

    @contextmanager
    def _progress(self, device: str) -> Iterator[None]:
        """A line a minute, from what efface keeps of its jobs."""
        ended = threading.Event()

        def tell() -> None:
            while not ended.wait(PROGRESS_SECONDS):
                job = self._running(device)
                if job:
                    LOG.info("%s: %s", device, progress(job))

        thread = threading.Thread(target=tell, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _running(self, device: str) -> dict[str, Any] | None:
        words = command.jobs(self._option("efface_binary"), self._option("efface_state_dir"))
        try:
            found = json.loads(self._execute(*words, run_as_root=True)[0])["jobs"]
        except (processutils.ProcessExecutionError, ValueError, KeyError) as error:
            LOG.warning("The progress of %s cannot be told: %s", device, error)
            return None
        running = (job for job in found if job["device"] == device and job["state"] == "running")
        return next(running, None)

    def _option(self, name: str) -> Any:
        return self.configuration.safe_get(name)


def io_priority(flag: str | None) -> str:
    """`-c2 -n7` as efface sets it for itself: a chained ionice would open a way round the filters."""
    words = (flag or "-c0").split()
    kind, level = words[0].removeprefix("-c"), "4"
    if len(words) == 2:
        level = words[1].removeprefix("-n")
    if len(words) > 2 or kind not in IO_CLASSES or level not in "01234567":
        raise exception.InvalidConfigurationValue(option="volume_clear_ionice", value=flag)
    return "idle" if kind == "3" else f"{IO_CLASSES[kind]}:{level}"


def device_bytes(device: str) -> int:
    try:
        name = os.path.basename(os.path.realpath(device, strict=True))
        with open(f"/sys/class/block/{name}/size", encoding="ascii") as file:
            return int(file.read()) * 512
    except OSError as error:
        reason = f"Volume device {device} is not there: {error}"
        raise exception.VolumeBackendAPIException(data=reason) from error


def progress(job: dict[str, Any]) -> str:
    percent = 100 * job["done_bytes"] // max(1, job["total_bytes"])
    left = "it cannot be said how long" if job["seconds_left"] is None else f"about {job['seconds_left']} s"
    return f"step {job['step']} of {job['steps']} ({job['act']}), {percent} % of all, {left} left"


def header_copies(volume: Any) -> list[str]:
    """What has the volume's LUKS header too, as far as cinder knows: there the key would survive."""
    now = context.get_admin_context()
    ever = context.get_admin_context(read_deleted="yes")
    identity = volume["id"]
    copies = []
    if volume["source_volid"] or volume["snapshot_id"]:
        copies.append("the volume that it was cloned from")
    if objects.VolumeList.get_all(now, filters={"source_volid": identity}):
        copies.append("a clone")
    snapshots = objects.SnapshotList.get_all_for_volume(ever, identity)
    if any(not snapshot.deleted for snapshot in snapshots):
        copies.append("a snapshot")
    if any(objects.VolumeList.get_all(now, filters={"snapshot_id": each.id}) for each in snapshots):
        copies.append("a volume made from a snapshot")
    if objects.BackupList.get_all_by_volume(now, identity, volume["project_id"], {}):
        copies.append("a backup")
    return copies
