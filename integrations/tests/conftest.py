"""What the tests run on: the machine as an operator prepares it, a volume group, and cinder's settings."""

import json
import os
import shutil
import struct
import subprocess
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import pytest

HERE = Path(__file__).parent
INTEGRATIONS = HERE.parent
PROJECT = "0123456789abcdef0123456789abcdef"
SECRET = b"tenant's secret!"
# What encryption makes of a secret.
CIPHERTEXT = os.urandom(1 << 20)
GROUP = "cinder-volumes"
GIB = 1 << 30
STOCK = "cinder.volume.drivers.lvm.LVMVolumeDriver"
RABBIT_PORT = 29672
API_PORT = 29776
# In memory: SQLite waits for the disk while it locks out the other services.
DATABASE = Path("/run/cinder/cinder.sqlite")
AS_CINDER = ["setpriv", "--reuid=cinder", "--regid=cinder", "--init-groups"]
ENVIRONMENT = {
    "PATH": "/srv/cinder/bin:/usr/sbin:/usr/bin",
    "HOME": "/mnt/cinder",
    "PYTHONWARNINGS": "ignore",
}

# A superblock that libblkid takes for GFS2, big-endian (linux/gfs2_ondisk.h).
GFS2_AT = 65536
GFS2 = struct.pack(">IIQIIII", 0x01161970, 1, 0, 100, 0, 1801, 1900).ljust(0x60, b"\0") + b"cluster:shared"

LVM_CONF = """\
devices { filter = [ "a|^/dev/loop200$|", "r|.*|" ] obtain_device_list_from_udev = 0 use_devicesfile = 0
    external_device_info_source = "none" multipath_component_detection = 0 md_component_detection = 0 }
global { activation = 0 locking_dir = "/run/lvm" use_lvmpolld = 0 }
backup { backup = 0 archive = 0 }
"""


def run(*words, **options):
    options = {"check": True, "capture_output": True, "text": True, **options}
    return subprocess.run([str(word) for word in words], **options)


def pytest_sessionstart(session):
    if os.environ.get("EFFACE_APART") != "sealed":
        pytest.exit("these tests run apart from the system only: tests/run", 2)


@pytest.fixture(scope="session")
def machine():
    """cinder installed as a distribution does, and efface beside it."""
    run("useradd", "--system", "--no-create-home", "cinder")
    shutil.copytree("/srv/cinder/etc/cinder", "/etc/cinder")
    sudoers = Path("/etc/sudoers.d/cinder")
    sudoers.write_text("cinder ALL = (root) NOPASSWD: /usr/bin/cinder-rootwrap /etc/cinder/rootwrap.conf *\n")
    Path("/usr/bin/cinder-rootwrap").symlink_to("/srv/cinder/bin/cinder-rootwrap")
    sudoers.chmod(0o440)
    for command in ("lvcreate", "lvremove", "lvrename", "lvchange", "lvconvert"):
        Path("/usr/sbin", command).unlink()
        shutil.copy(HERE / "lvm-without-device-mapper", f"/usr/sbin/{command}")
    Path("/etc/lvm/lvm.conf").write_text(LVM_CONF)
    # What the Debian package and the README put there.
    shutil.copy(os.environ["EFFACE_UNDER_TEST"], "/usr/bin/efface")
    Path("/usr/share/cinder/rootwrap").mkdir(parents=True)
    shutil.copy(INTEGRATIONS / "openstack/rootwrap.d/efface.filters", "/usr/share/cinder/rootwrap/")
    shutil.rmtree("/var/lib/efface", ignore_errors=True)
    folders = {"": 0o711, "certificates": 0o750, "jobs": 0o700, "ledger": 0o700, "metrics": 0o755}
    for folder, mode in folders.items():
        Path("/var/lib/efface", folder).mkdir(parents=True)
        Path("/var/lib/efface", folder).chmod(mode)
    shutil.chown("/var/lib/efface/certificates", group="cinder")
    for folder in ("/mnt/cinder", "/mnt/cinder/lock", DATABASE.parent):
        Path(folder).mkdir()
        shutil.chown(folder, "cinder")


@pytest.fixture(scope="session")
def group(machine):
    for file in ("/mnt/pv", "/mnt/data"):
        with open(file, "wb") as image:
            image.truncate(40 * GIB)
    run("losetup", "/dev/loop200", "/mnt/pv")
    run("pvcreate", "/dev/loop200")
    run("vgcreate", "--alloc", "contiguous", GROUP, "/dev/loop200")
    yield GROUP
    run("losetup", "--detach", "/dev/loop200")


@pytest.fixture(scope="session")
def schema(machine):
    """An empty database, as `cinder-manage db sync` makes it."""
    Cinder().configure()
    run(*AS_CINDER, "/srv/cinder/bin/cinder-manage", "db", "sync", env=ENVIRONMENT)
    return DATABASE.rename(DATABASE.with_suffix(".empty"))


@pytest.fixture
def database(schema):
    """cinder's, with no row of an earlier test."""
    # A journal of an earlier one would be rolled back into this one.
    DATABASE.with_name(f"{DATABASE.name}-journal").unlink(missing_ok=True)
    run(*AS_CINDER, "cp", schema, DATABASE)
    return DATABASE


def logical_volumes():
    return run("lvs", "--noheadings", "-o", "lv_name").stdout.split()


@dataclass
class Volume:
    """A logical volume by cinder's naming, and its bytes in the file below it."""

    size_gib: int = 1
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    template: str = "volume-%s"
    place: tuple[int, int] | None = None
    secret: bytes = SECRET

    @property
    def name(self):
        return self.template % self.id

    @property
    def deleted_name(self):
        """While it waits to be cleared."""
        return f"efface-deleted-{self.id}"

    @property
    def node(self):
        return Path("/dev/mapper", "-".join(word.replace("-", "--") for word in (GROUP, self.name)))

    def fields(self, **more):
        return {"id": self.id, "size": self.size_gib, "project_id": PROJECT, **more}

    def exists(self):
        return self.name in logical_volumes()

    def waits(self):
        return self.deleted_name in logical_volumes()

    def fill(self):
        """Writes secrets at the start, in the middle and at the very end."""
        size = int(run("blockdev", "--getsize64", self.node).stdout)
        offset = int(run("losetup", "--noheadings", "--output", "OFFSET", self.node.resolve()).stdout)
        self.place = (offset, size)
        with open("/mnt/data", "r+b") as data:
            for at in (0, size // 2, size - (1 << 20)):
                data.seek(offset + at)
                data.write(SECRET * (1 << 16))

    def encrypt(self):
        """Replaces the secrets by what encryption would write."""
        _, size = self.place
        self.secret = CIPHERTEXT
        for at in (size // 2, size - (1 << 20)):
            self.write(at, CIPHERTEXT)

    def write(self, at, content):
        with open("/mnt/data", "r+b") as data:
            data.seek(self.place[0] + at)
            data.write(content)

    def secrets(self):
        """How many MiB below it still hold the secret; the volume may be gone by now."""
        offset, size = self.place
        found = 0
        with open("/mnt/data", "rb") as data:
            at, end = offset, offset + size
            while at < end:
                try:
                    at = max(at, os.lseek(data.fileno(), at, os.SEEK_DATA)) & ~0xFFFFF
                except OSError:
                    break
                if at >= end:
                    break
                data.seek(at)
                found += self.secret[:4096] in data.read(1 << 20)
                at += 1 << 20
        return found


class Cinder:
    """cinder.conf, and the driver in a process of the service's user."""

    def configure(self, DEFAULT=None, **options):
        default = {"volume_service_inithost_offload": "True", **(DEFAULT or {})}
        backend = {
            "volume_driver": "efface_openstack.cinder.EffaceLVMDriver",
            "volume_group": GROUP,
            "volume_backend_name": "lvm",
            "lvm_type": "default",
            "target_helper": "fake",
            **options,
        }
        lines = [
            "[DEFAULT]",
            "enabled_backends = lvm",
            "state_path = /mnt/cinder",
            "auth_strategy = noauth",
            "api_paste_config = /etc/cinder/api-paste.ini",
            f"transport_url = rabbit://guest:guest@127.0.0.1:{RABBIT_PORT}/",
            "osapi_volume_listen = 127.0.0.1",
            f"osapi_volume_listen_port = {API_PORT}",
            "osapi_volume_workers = 1",
            "rootwrap_config = /etc/cinder/rootwrap.conf",
            *(f"{name} = {value}" for name, value in default.items()),
            "[oslo_messaging_notifications]",
            "driver = log",
            "[oslo_concurrency]",
            "lock_path = /mnt/cinder/lock",
            "[database]",
            f"connection = sqlite:///{DATABASE}",
            "[lvm]",
            *(f"{name} = {value}" for name, value in backend.items()),
        ]
        Path("/etc/cinder/cinder.conf").write_text("\n".join(lines) + "\n")

    def start(self, *calls, within=(), into=subprocess.PIPE, **options):
        """The driver at work: [method, fields]…; configured with these options."""
        self.configure(**options)
        process = subprocess.Popen(
            [*within, *AS_CINDER, "/srv/cinder/bin/python", str(HERE / "drive.py")],
            stdin=subprocess.PIPE,
            stdout=into,
            stderr=into,
            text=True,
            cwd="/mnt/cinder",
            env=ENVIRONMENT,
        )
        process.stdin.write(json.dumps(calls))
        process.stdin.close()
        process.stdin = None
        return process

    def call(self, *calls, **options):
        """The same, to its end: exit code, what went wrong, and the log."""
        process = self.start(*calls, **options)
        # oslo.log of Debian 12 ends each line with the word for no colour.
        out, log = (text.replace("\x1b[00m", "") for text in process.communicate(timeout=300))
        assert process.returncode in (0, 1) and "Traceback" not in log.split("drive.py")[-1], log
        return process.returncode, out, log

    def create(self, volume, extents=None):
        """A volume with a tenant's secrets; one of this many extents as if it had been managed."""
        if extents is None:
            code, out, log = self.call(["create_volume", volume.fields()])
            assert code == 0, out + log
        else:
            run("lvcreate", "-n", volume.name, GROUP, "-l", extents)
        volume.fill()
        assert volume.secrets() == 3
        return volume

    def delete(self, volume, fields=None, **options):
        return self.call(["delete_volume", {**volume.fields(), **(fields or {})}], **options)


@pytest.fixture
def cinder(group):
    yield Cinder()
    # What a service left behind.
    wait_for(lambda: not processes("efface"))
    for name in run("lvs", "--noheadings", "-o", "vg_name,lv_name", "--separator", "/").stdout.split():
        run("lvremove", "-f", name)
    for folder in ("certificates", "jobs", "ledger", "metrics"):
        for file in Path("/var/lib/efface", folder).iterdir():
            file.unlink()
    # Holes again: the image is sparse.
    run("fallocate", "--punch-hole", "--offset", "0", "--length", str(40 * GIB), "/mnt/data")


def ours():
    """The processes in the test's mount namespace: the host has others."""
    here = os.readlink("/proc/self/ns/mnt")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "ns/mnt") == here:
                yield process
        except OSError:
            # It has ended by now.
            continue


def processes(name):
    """The ids of the running processes of this name."""
    found = []
    for process in ours():
        try:
            state = (process / "stat").read_text().rsplit(") ", 1)[1][0]
            if (process / "comm").read_text().strip() == name and state != "Z":
                found.append(int(process.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def writers():
    """The ids of the processes that have one of the volumes open for writing."""

    def writes(process):
        try:
            for number in os.listdir(process / "fd"):
                flags = int((process / "fdinfo" / number).read_text().split()[3], 8)
                to_read = flags & os.O_ACCMODE == os.O_RDONLY
                if not to_read and os.readlink(process / "fd" / number).startswith("/dev/loop"):
                    return True
        except OSError:
            # It has ended by now.
            return False
        return False

    return {int(process.name) for process in ours() if writes(process)}


def wait_for(what, seconds=180):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.02)
    raise AssertionError("timed out")


@pytest.fixture
def deb():
    deb = Path(os.environ["EFFACE_DEB"])
    if not deb.exists():
        pytest.skip("no Debian package was built: scripts/package deb")
    return deb


@pytest.fixture
def wrapped():
    """Puts a shell script in the place of a program, which it calls as $REAL."""

    def wrap(name, script):
        real = Path("/usr/bin", name).resolve()
        away = real.rename(f"{real}.real")
        moved.append((real, away))
        real.write_text(f"#!/bin/sh\nREAL={away}\n{script}\n")
        real.chmod(0o755)

    moved = []
    yield wrap
    for real, away in moved:
        away.replace(real)


@pytest.fixture
def lvs():
    """Puts lines of a shell script before lvs."""
    program = Path("/usr/sbin/lvs")
    target = os.readlink(program)

    def script(lines):
        program.unlink()
        program.write_text(f'#!/bin/sh\n{lines}\nexec lvm lvs "$@"\n')
        program.chmod(0o755)

    yield script
    program.unlink()
    program.symlink_to(target)


@pytest.fixture
def traced(wrapped, tmp_path):
    """Runs a program under strace; gives the calls of all its threads, those of one after another's."""

    def trace(name):
        tmp_path.chmod(0o777)
        wrapped(name, f'exec strace -ff -A -qq -o {tmp_path}/{name} -e trace=%file,%desc $REAL "$@"')
        return lambda: "".join(file.read_text() for file in tmp_path.glob(f"{name}.*"))

    return trace


def certificates():
    folder = Path("/var/lib/efface/certificates")
    return [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]


def jobs():
    """What efface jobs shows."""
    return json.loads(run("efface", "jobs", "--json", "--state-dir", "/var/lib/efface/jobs").stdout)["jobs"]


def job_states():
    return [job["state"] for job in jobs()]
