"""The real ironic-python-agent cleans nodes whose disks are the test's loop devices, in a sealed namespace.

Each weakness of the stock agent is shown beside the behaviour of efface.
"""

import json
import os
import shutil
import struct
import subprocess
import threading
import uuid
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import requests
from conftest import GFS2, GFS2_AT, HERE, SECRET, certificates, run, wait_for

MIB = 1 << 20
ERASE = {"step": "erase_devices", "priority": 10, "interface": "deploy"}
OURS = {"step": "efface_erase_devices", "priority": 0, "interface": "deploy"}


class Disk:
    """A loop device over an image full of secrets."""

    def __init__(self, number, size=8 * MIB):
        self.node = Path(f"/dev/loop{number}")
        self.image = Path(f"/mnt/disk{number}")
        self.image.write_bytes(SECRET * (size // len(SECRET)))
        run("losetup", self.node, self.image)

    def write(self, at, content):
        with self.image.open("r+b") as image:
            image.seek(at)
            image.write(content)

    def holds_secrets(self):
        return SECRET in self.image.read_bytes()

    def close(self):
        run("losetup", "--detach", self.node)
        self.image.unlink()


@pytest.fixture
def disks():
    made = [Disk(number) for number in (201, 202, 203)]
    yield made
    for disk in made:
        disk.close()


@pytest.fixture(autouse=True)
def ramdisk(tmp_path):
    """Where the agent finds its tools; efface is one of them."""
    tools = tmp_path / "tools"
    tools.mkdir()
    shutil.copy(HERE / "lsblk-of-the-tests-disks", tools / "lsblk")
    (tools / "efface").symlink_to(os.environ["EFFACE_UNDER_TEST"])
    # The one that cinder's tests installed is not in the ramdisk.
    installed, away = Path("/usr/bin/efface"), Path("/usr/bin/efface.away")
    if installed.exists():
        installed.rename(away)
    yield tools
    if away.exists():
        away.rename(installed)
    shutil.rmtree("/var/lib/efface/certificates", ignore_errors=True)
    Path("/var/lib/efface/certificates").mkdir(parents=True)


def environment(ramdisk, disks, **more):
    names = " ".join(disk.node.name for disk in disks)
    path = f"{ramdisk}:/srv/ironic/bin:/usr/sbin:/usr/bin"
    return {"PATH": path, "HOME": "/mnt", "EFFACE_APART": "sealed", "EFFACE_TEST_DISKS": names, **more}


def node(properties=None, **info):
    return {
        "uuid": str(uuid.uuid4()),
        "properties": properties or {},
        "instance_info": {},
        "driver_internal_info": info,
    }


def clean(ramdisk, disks, step=ERASE, of=None, version=None, **more):
    """What the agent reports to the conductor: result by device, or the error."""
    asked = {"step": step, "node": of or node(), "clean_version": version}
    words = ["/srv/ironic/bin/python", HERE / "clean.py"]
    ran = run(*words, input=json.dumps(asked), env=environment(ramdisk, disks, **more), check=False)
    print(ran.stderr)
    assert ran.returncode == 0
    answer = json.loads(ran.stdout.splitlines()[-1])
    if answer["command_status"] == "SUCCEEDED":
        return answer["command_result"].get("clean_result", answer["command_result"]), None
    return None, answer["command_error"]


def stock(ramdisk):
    (ramdisk / "efface").unlink()


def passes(record):
    operations = [step["operation"] for step in record["job"]["plan"]["steps"]]
    return [operation["pattern"]["kind"] for operation in operations if operation["kind"] == "write"]


def md_superblock(at=4096):
    """Of a RAID that is no more: version 1.2, as mdadm leaves it (linux/raid/md_p.h)."""
    block = bytearray(256)
    struct.pack_into("<III", block, 0, 0xA92B4EFC, 1, 0)
    block[16:32] = uuid.uuid4().bytes
    block[32:35] = b"old"
    struct.pack_into("<QIIQII", block, 64, 0, 1, 0, 8192, 0, 2)
    struct.pack_into("<QQQ", block, 128, 2048, 8192, at // 512)
    total = sum(struct.unpack("<64I", block))
    struct.pack_into("<I", block, 216, (total & 0xFFFFFFFF) + (total >> 32) & 0xFFFFFFFF)
    return bytes(block)


def test_all_disks_are_wiped_and_their_certificates_are_the_result(ramdisk, disks):
    result, error = clean(ramdisk, disks, of=node(disk_erasure_concurrency=3))
    assert error is None
    assert set(result) == {str(disk.node) for disk in disks}
    for disk in disks:
        record = result[str(disk.node)]
        assert record["verdict"] == "wiped" and record["identity"]["size_bytes"] == 8 * MIB
        assert passes(record) == ["random", "constant"], "one iteration and zeroes: the conductor's defaults"
        assert disk.image.read_bytes() == bytes(8 * MIB)
    assert {record["id"] for record in certificates()} == {record["id"] for record in result.values()}


def test_the_conductors_shred_options_are_kept(ramdisk, disks):
    asked = node(agent_erase_devices_iterations=2, agent_erase_devices_zeroize=False)
    result, error = clean(ramdisk, disks[:1], of=asked)
    assert error is None
    [record] = result.values()
    assert passes(record) == ["random", "random"]
    nothing = node(agent_erase_devices_iterations=0, agent_erase_devices_zeroize=False)
    assert "would overwrite nothing" in clean(ramdisk, disks[1:2], of=nothing)[1]["details"]
    assert disks[1].holds_secrets()


def test_a_skip_hint_is_kept_and_the_skipped_disk_is_not_reported(ramdisk, disks):
    hint = {"skip_block_devices": [{"name": str(disks[1].node)}]}
    result, error = clean(ramdisk, disks, of=node(hint))
    assert error is None and set(result) == {str(disks[0].node), str(disks[2].node)}
    assert [disk.holds_secrets() for disk in disks] == [False, True, False]


@pytest.mark.parametrize("step", [ERASE, OURS])
def test_one_failing_disk_of_three_fails_the_node_and_the_others_have_certificates(ramdisk, disks, step):
    held = os.open(disks[1].node, os.O_RDWR | os.O_EXCL)
    try:
        result, error = clean(ramdisk, disks, step=step)
    finally:
        os.close(held)
    assert result is None and error["type"] == "BlockDeviceEraseError"
    assert str(disks[1].node) in error["details"] and "has it open" in error["details"]
    assert [disk.holds_secrets() for disk in disks] == [False, True, False]
    assert sorted(record["verdict"] for record in certificates()) == ["refused", "wiped", "wiped"]
    for record in certificates():
        erased = f"{record['device']} (certificate {record['id']}) was erased"
        assert (erased in error["details"]) == (record["verdict"] == "wiped"), error


def test_where_the_agent_guards_one_disk_none_is_erased(ramdisk, disks):
    error = clean(ramdisk, disks, EFFACE_TEST_GUARDED=str(disks[2].node))[1]
    assert error["type"] == "ProtectedDeviceError" and str(disks[2].node) in error["details"]
    assert all(disk.holds_secrets() for disk in disks) and not certificates()


def test_without_the_binary_the_stock_agent_erases(ramdisk, disks):
    stock(ramdisk)
    result, error = clean(ramdisk, disks)
    assert error is None and set(result.values()) == {None}
    assert not any(disk.holds_secrets() for disk in disks)


def test_another_manager_version_is_a_mismatch(ramdisk, disks):
    steps, _ = clean(ramdisk, disks, step=None)
    versions = steps["hardware_manager_version"]
    assert versions["EffaceHardwareManager"] == "1"
    error = clean(ramdisk, disks, version={**versions, "EffaceHardwareManager": "0"})[1]
    assert error["type"] == "VersionMismatch" and error["code"] == 409
    assert all(disk.holds_secrets() for disk in disks)
    assert clean(ramdisk, disks, version=versions)[1] is None


def test_the_step_of_efface_is_for_manual_cleaning_and_takes_a_method(ramdisk, disks):
    steps, _ = clean(ramdisk, disks, step=None)
    [ours] = [step for step in steps["clean_steps"]["EffaceHardwareManager"]]
    assert (ours["step"], ours["priority"]) == ("efface_erase_devices", 0)
    chosen = {**OURS, "args": {"efface_method": "shred", "efface_verify": "full"}}
    result, error = clean(ramdisk, disks, step=chosen)
    assert error is None
    assert {record["method"] for record in result.values()} == {"shred"}
    assert not any(disk.holds_secrets() for disk in disks)
    unknown = {**OURS, "args": {"efface_method": "magnets"}}
    assert "magnets" in clean(ramdisk, disks, step=unknown)[1]["details"]


@pytest.fixture
def in_udevs_database():
    """Gives the first disk a property that the agent reads and efface does not."""
    number = Path("/sys/block/loop201/dev").read_text().strip()
    file = Path("/run/udev/data", f"b{number}")
    file.parent.mkdir(parents=True, exist_ok=True)
    yield lambda line: file.write_text(f"E:{line}\n")
    file.unlink(missing_ok=True)


@pytest.mark.parametrize("name, value", [("SERIAL", "ZC18XYZ9"), ("WWN", "0x5000c500a1b2c3d4")])
def test_another_disk_than_the_agent_expects_is_refused(ramdisk, disks, in_udevs_database, name, value):
    in_udevs_database(f"DM_{name}={value}")
    error = clean(ramdisk, disks[:1])[1]
    assert value in error["details"] and "was expected" in error["details"]
    assert disks[0].holds_secrets()


WIPED = """
from ironic_python_agent import config, hardware
from efface_openstack import ironic
try:
    disk = hardware.BlockDevice("--help", "model", 1 << 30, False)
    ironic.wipe({"uuid": "a node"}, disk, ["--method", "zero"])
except hardware.errors.BlockDeviceEraseError as error:
    print(error.details)
"""


def test_a_device_is_never_taken_for_an_option(ramdisk):
    ran = run("/srv/ironic/bin/python", "-c", WIPED, env=environment(ramdisk, []), check=False)
    assert "no such device" in ran.stdout, ran


def test_i1_stock_skips_a_stale_raid_member_and_succeeds(ramdisk, disks):
    disks[0].write(4096, md_superblock())
    stock(ramdisk)
    result, error = clean(ramdisk, disks[:1])
    assert error is None and set(result.values()) == {None} and disks[0].holds_secrets()


def test_i1_a_stale_raid_member_is_wiped(ramdisk, disks):
    disks[0].write(4096, md_superblock())
    result, error = clean(ramdisk, disks[:1])
    assert error is None and not disks[0].holds_secrets()
    [record] = result.values()
    assert [found["kind"] for found in record["findings"]["signatures"]] == ["linux_raid_member"]


def test_i2_stock_succeeds_and_erases_nothing_if_lsblk_fails(ramdisk, disks):
    stock(ramdisk)
    unreadable = {"EFFACE_TEST_UNREADABLE": str(disks[0].node)}
    assert clean(ramdisk, disks[:1], **unreadable)[1] is None
    assert disks[0].holds_secrets()


def test_i2_a_disk_is_wiped_even_if_lsblk_fails(ramdisk, disks):
    unreadable = {"EFFACE_TEST_UNREADABLE": str(disks[0].node)}
    assert clean(ramdisk, disks[:1], **unreadable)[1] is None
    assert not disks[0].holds_secrets()


def gfs2(disk):
    disk.write(GFS2_AT, GFS2)


def vmfs_type(disk):
    table = "label: gpt\nstart=2048, type=AA31E02A-400F-11DB-9590-000C2911D1B8\n"
    run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", "--wipe", "never", disk.image, input=table)


def vmfs_partition(disk):
    vmfs_type(disk)
    # LVM of VMFS, as libblkid knows it: VMFS_volume_member, 1 MiB into the partition.
    disk.write(2 * MIB, bytes.fromhex("0d d0 01 c0"))


@pytest.mark.parametrize("shared, name", [(gfs2, "gfs2"), (vmfs_partition, "VMFS")])
def test_i3_i4_a_shared_file_system_is_refused(ramdisk, disks, shared, name):
    run("losetup", "--detach", disks[0].node)
    disks[0] = Disk(201, 40 * MIB)
    shared(disks[0])
    before = disks[0].image.read_bytes()
    error = clean(ramdisk, disks[:1])[1]
    assert error is not None and name in error["details"] and "refused" in error["details"]
    assert disks[0].image.read_bytes() == before
    chosen = {**OURS, "args": {"efface_shared_fs": True}}
    result, error = clean(ramdisk, disks[:1], step=chosen)
    assert error is None and not disks[0].holds_secrets()
    [record] = result.values()
    assert [forced["force"] for forced in record["findings"]["forced"]] == ["shared-fs"]


@pytest.mark.parametrize("value", [False, "false"])
def test_the_step_of_efface_keeps_a_shared_file_system_unless_it_is_asked(ramdisk, disks, value):
    run("losetup", "--detach", disks[0].node)
    disks[0] = Disk(201, 40 * MIB)
    gfs2(disks[0])
    refused = clean(ramdisk, disks[:1], step={**OURS, "args": {"efface_shared_fs": value}})[1]
    assert "gfs2" in refused["details"] and disks[0].holds_secrets()
    wrong = clean(ramdisk, disks[:1], step={**OURS, "args": {"efface_shared_fs": "perhaps"}})[1]
    assert "perhaps" in wrong["details"] and disks[0].holds_secrets()


@pytest.mark.parametrize("shared", [gfs2, vmfs_partition])
def test_i3_i4_stock_erases_it(ramdisk, disks, shared):
    run("losetup", "--detach", disks[0].node)
    disks[0] = Disk(201, 40 * MIB)
    shared(disks[0])
    stock(ramdisk)
    assert clean(ramdisk, disks[:1])[1] is None
    assert not disks[0].holds_secrets()


def test_i4_a_partition_type_alone_is_no_file_system(ramdisk, disks):
    run("losetup", "--detach", disks[0].node)
    disks[0] = Disk(201, 40 * MIB)
    vmfs_type(disks[0])
    result, error = clean(ramdisk, disks[:1])
    assert error is None and not disks[0].holds_secrets()
    assert result[str(disks[0].node)]["findings"]["signatures"], "the table was seen"


def test_i5_skipped_and_erased_are_distinguished(ramdisk, disks):
    run("blockdev", "--setro", disks[0].node)
    try:
        refused = clean(ramdisk, disks[:2])[1]
        assert "read-only" in refused["details"]
        result, error = clean(ramdisk, disks[:2], of=node(agent_erase_skip_read_only=True))
        assert error is None
        assert result[str(disks[0].node)] == {"skipped": "read-only"}
        assert result[str(disks[1].node)]["verdict"] == "wiped"
        stock(ramdisk)
        result, error = clean(ramdisk, disks[:2], of=node(agent_erase_skip_read_only=True))
        assert error is None and set(result.values()) == {None}
    finally:
        run("blockdev", "--setrw", disks[0].node)
    assert disks[0].holds_secrets()


def test_i6_the_true_error_is_reported(ramdisk, disks):
    run("mkfs.ext4", "-q", disks[0].node)
    Path("/mnt/mounted").mkdir(exist_ok=True)
    run("mount", disks[0].node, "/mnt/mounted")
    try:
        error = clean(ramdisk, disks[:1])[1]
        assert "/mnt/mounted" in error["details"] and "umount" in error["details"]
        held = os.open("/mnt/mounted/file", os.O_CREAT | os.O_RDWR)
        os.close(held)
    finally:
        run("umount", "/mnt/mounted")


def test_i6_stock_calls_a_failed_shred_an_unsupported_device(ramdisk, disks):
    stock(ramdisk)
    (ramdisk / "shred").write_text("#!/bin/sh\necho 'shred: input/output error' >&2; exit 1\n")
    (ramdisk / "shred").chmod(0o755)
    error = clean(ramdisk, disks[:1])[1]
    assert "input/output error" not in json.dumps(error)


class Receiver(BaseHTTPRequestHandler):
    """Takes what is put, or answers with an error."""

    def do_PUT(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received[self.path] = content
        self.send_response(self.server.answer)
        self.end_headers()


@pytest.fixture
def receiver(tmp_path):
    """An HTTP server, its URL a parameter of the ramdisk's kernel."""
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    server.received, server.answer = {}, 201
    threading.Thread(target=server.serve_forever, daemon=True).start()
    parameters = tmp_path / "cmdline"
    parameters.write_text(f"quiet efface-certificates-url=http://127.0.0.1:{server.server_port}/records/\n")
    run("mount", "--bind", parameters, "/proc/cmdline")
    yield server
    run("umount", "/proc/cmdline")
    server.shutdown()


def test_certificates_are_sent_where_the_kernel_parameter_says(ramdisk, disks, receiver):
    run("blockdev", "--setro", disks[1].node)
    of = node()
    try:
        clean(ramdisk, disks, of=of)
    finally:
        run("blockdev", "--setrw", disks[1].node)
    files = Path("/var/lib/efface/certificates").iterdir()
    assert receiver.received == {f"/records/{of['uuid']}/{file.name}": file.read_bytes() for file in files}
    verdicts = sorted(json.loads(content)["verdict"] for content in receiver.received.values())
    assert verdicts == ["refused", "wiped", "wiped"]


@pytest.mark.parametrize("answer", [302, 507])
def test_a_certificate_that_is_not_received_is_an_error(ramdisk, disks, receiver, answer):
    receiver.answer = answer
    details = clean(ramdisk, disks[:1])[1]["details"]
    assert "it is wiped, but its certificate was not received" in details and str(answer) in details


def drive(ramdisk, name, answer):
    """A tool that answers for a drive, and keeps what it was ordered."""
    (ramdisk / f"{name}.answer").write_text(answer)
    (ramdisk / name).write_text('#!/bin/sh\necho "$*" >>/mnt/orders\ncat "$0.answer"\n')
    (ramdisk / name).chmod(0o755)


def test_a_drive_that_can_erase_itself_is_left_to_stock(ramdisk, disks):
    Path("/mnt/orders").unlink(missing_ok=True)
    drive(
        ramdisk,
        "hdparm",
        "\nSecurity: \n\tsupported\n\tnot\tenabled\n\tnot\tlocked\n\tnot\tfrozen\n",
    )
    drive(ramdisk, "smartctl", "ATA Security is: Disabled, NOT FROZEN [SEC1]")
    clean(ramdisk, disks[:1], of=node(agent_continue_if_secure_erase_failed=True))
    assert "--security-erase" in Path("/mnt/orders").read_text()
    result, error = clean(ramdisk, disks[1:2], of=node(agent_enable_ata_secure_erase=False))
    assert error is None and result[str(disks[1].node)]["verdict"] == "wiped"


class Nvme:
    """Loop devices by the names of an NVMe drive's namespaces, its sysfs, and tools that answer for it.

    No namespace can be made here. `efface purge` is answered for, and `efface wipe` is the real one.
    """

    def __init__(self, ramdisk, folder):
        self.ramdisk, self.folder, self.disks, self.orders = ramdisk, folder, [], folder / "orders"
        self.renamed, self.links, self.shown = [], [], []
        self.answers = folder / "answers"
        self.answers.mkdir()
        self.controller(oacs=0b10, fna=0b100)
        self.tool("nvme", 'cat "$ANSWERS/$1" || exit 1')
        efface = os.environ["EFFACE_UNDER_TEST"]
        (ramdisk / "efface").unlink()
        self.tool(
            "efface",
            f"""[ "$1" = purge ] || exec {efface} "$@"
case "$*" in *--dry-run*) cat "$ANSWERS/outline" && exit; echo "efface: not now" >&2; exit 3 ;; esac
for word; do
    if [ "$before" = --certificate-to ] && [ -e "$ANSWERS/record" ]; then cp "$ANSWERS/record" "$word"; fi
    before=$word
done
echo "efface: as the drive answers" >&2
exit "$(cat "$ANSWERS/code")"
""",
        )

    def tool(self, name, script):
        head = f'#!/bin/sh\nANSWERS={self.answers}\necho "{name} $*" >>{self.orders}\n'
        (self.ramdisk / name).write_text(head + script)
        (self.ramdisk / name).chmod(0o755)

    def controller(self, **fields):
        (self.answers / "id-ctrl").write_text(json.dumps(fields))

    def namespace(self, number, disk=None, below="pci/nvme0"):
        """In sysfs, and as a node of the test's disk."""
        name = f"nvme0n{number}"
        self.block(f"{below}/{name}", number, hidden=0, read_only=0)
        self.shown.append(name)
        self.reaches()
        if disk:
            Path("/dev", name).symlink_to(disk.node.name)
            self.links.append(Path("/dev", name))
            self.renamed.append(f"{disk.node.name}={name}")
            self.disks.append(disk)

    def block(self, place, number, hidden, read_only):
        folder = self.folder / "sys/devices" / place
        folder.mkdir(parents=True)
        for attribute, value in {"nsid": number, "hidden": hidden, "ro": read_only}.items():
            (folder / attribute).write_text(f"{value}\n")
        self.link("block", folder)
        if not (self.folder / "sys/class/nvme-subsystem").exists():
            subsystem = self.folder / "sys/devices/virtual/nvme-subsys0"
            subsystem.mkdir(parents=True, exist_ok=True)
            self.link("class/nvme-subsystem", subsystem)
            (self.folder / "sys/devices/pci/nvme0").mkdir(parents=True, exist_ok=True)
            (subsystem / "nvme0").symlink_to(self.folder / "sys/devices/pci/nvme0")

    def link(self, of, folder):
        place = self.folder / "sys" / of
        place.mkdir(parents=True, exist_ok=True)
        (place / folder.name).symlink_to(folder)

    def scope(self):
        nodes = [{"nsid": at, "nodes": [{"name": name}]} for at, name in enumerate(self.shown, 1)]
        return {"namespaces": nodes}

    def reaches(self, *limitations):
        """What a dry run says, and what it says that cannot be seen."""
        outline = {"scope": self.scope(), "reach": "subsystem", "limitations": limitations}
        (self.answers / "outline").write_text(json.dumps(outline))

    def purge(self, code, reach="subsystem", record=True):
        """How each purge ends from now on."""
        (self.answers / "code").write_text(str(code))
        (self.answers / "record").unlink(missing_ok=True)
        verdict = {0: "erased", 1: "failed", 3: "refused", 4: "unsupported", 5: "residue", 6: "surviving"}
        made = {"id": f"purge-{code}", "verdict": verdict.get(code)}
        if code in (0, 1, 5, 6):
            made["purge"] = {"reach": reach, "scope": self.scope()}
        if record:
            (self.answers / "record").write_text(json.dumps(made))

    def clean(self, properties=None, **info):
        more = {"EFFACE_TEST_SYS": str(self.folder / "sys"), "EFFACE_TEST_DISKS": " ".join(self.renamed)}
        return clean(self.ramdisk, [], of=node(properties, **info), **more)

    def sent(self, word):
        """The command lines that have this beginning, but for dry runs."""
        lines = self.orders.read_text().splitlines() if self.orders.exists() else []
        return [line for line in lines if line.startswith(word) and "--dry-run" not in line]

    def close(self):
        for link in self.links:
            link.unlink()


@pytest.fixture
def drive_of(ramdisk, tmp_path, disks):
    """An NVMe drive with these disks as its namespaces."""
    made = []

    def make(*members, **more):
        (tmp_path / "nvme").mkdir()
        made.append(Nvme(ramdisk, tmp_path / "nvme"))
        for number, disk in enumerate(members, 1):
            made[0].namespace(number, disk, **more)
        made[0].purge(0)
        return made[0]

    yield make
    for drive in made:
        drive.close()


MAY_GO_ON = {"agent_continue_if_secure_erase_failed": True}


def test_an_nvme_drive_is_purged_and_not_overwritten(drive_of, disks):
    drive = drive_of(disks[0])
    result, error = drive.clean()
    assert error is None
    [order] = drive.sent("efface")
    assert order.startswith("efface purge --or-clear --expect-size 8388608 ")
    assert order.endswith(" --yes --quiet -- /dev/nvme0n1") and "--all-namespaces" not in order
    record = result["/dev/nvme0n1"]
    assert (record["id"], record["verdict"]) == ("purge-0", "erased")
    assert "nvme format /dev/nvme0n1 -s 2 -f" in record["stock"] and "this namespace" in record["stock"]
    assert disks[0].holds_secrets(), "what answers for the drive erases nothing, and nothing else did"
    assert {line.split()[1] for line in drive.sent("nvme")} == {"id-ctrl"}


def test_without_the_conductors_leave_an_nvme_drive_is_overwritten(drive_of, disks):
    drive = drive_of(*disks[:2])
    result, error = drive.clean(agent_enable_nvme_secure_erase=False)
    assert error is None and {record["verdict"] for record in result.values()} == {"wiped"}
    assert not drive.sent("efface purge") and not drive.sent("nvme")
    assert not any(disk.holds_secrets() for disk in disks[:2])


@pytest.mark.parametrize("below", ["pci/nvme0", "virtual/nvme-subsys0"])
def test_the_namespaces_of_a_drive_are_purged_once_and_share_the_result(drive_of, disks, below):
    drive = drive_of(*disks, below=below)
    # A path below a head of paths.
    drive.block("pci/nvme0/nvme0c0n1", 1, hidden=1, read_only=0)
    result, error = drive.clean(disk_erasure_concurrency=3)
    assert error is None and set(result) == {"/dev/nvme0n1", "/dev/nvme0n2", "/dev/nvme0n3"}
    assert {record["id"] for record in result.values()} == {"purge-0"}
    assert "/dev/nvme0n3 -s 2" in result["/dev/nvme0n3"]["stock"]
    [order] = drive.sent("efface")
    assert "purge --or-clear --all-namespaces" in order and order.endswith("/dev/nvme0n1")


def test_a_purge_that_reaches_one_namespace_is_followed_by_that_of_the_next(drive_of, disks):
    drive = drive_of(*disks[:2])
    drive.purge(0, reach="namespace")
    assert drive.clean()[1] is None
    assert [order.split()[-1] for order in drive.sent("efface")] == ["/dev/nvme0n1", "/dev/nvme0n2"]


def hinted(drive):
    return {"skip_block_devices": [{"name": "/dev/nvme0n2"}]}


def read_only(drive):
    (drive.folder / "sys/block/nvme0n2/ro").write_text("1\n")


def without_a_size(drive):
    drive.namespace(3)


def unseen(drive):
    drive.reaches("Namespace 7 has no block device here: nothing of it was read.")


def with_another_node(drive):
    drive.shown.append("nvme1n1")
    drive.reaches()


def not_known(drive):
    (drive.answers / "outline").unlink()


def not_understood(drive):
    (drive.answers / "outline").write_text('{"scope": []}')


def not_in_sysfs(drive):
    shutil.rmtree(drive.folder / "sys/class")


NOT_COVERED = {
    hinted: "--all-namespaces was not given: this step does not erase nvme0n2",
    read_only: "--all-namespaces was not given: this step does not erase nvme0n2",
    without_a_size: "--all-namespaces was not given: this step does not erase nvme0n3",
    unseen: "--all-namespaces was not given: Namespace 7 has no block device here",
    with_another_node: "--all-namespaces was not given: It reaches nvme1n1, too.",
    not_known: "--all-namespaces was not given: it was refused, and nothing was written: not now",
    not_understood: "--all-namespaces was not given: what it would reach is not known",
    not_in_sysfs: "as the drive answers",
}


@pytest.mark.parametrize("case, why", NOT_COVERED.items())
def test_other_namespaces_are_not_named_where_the_step_does_not_cover_all(drive_of, disks, case, why):
    drive = drive_of(*disks[:2])
    hint = case(drive)
    drive.purge(3)
    details = drive.clean(hint, agent_erase_skip_read_only=True)[1]["details"]
    assert "it was refused, and nothing was written: as the drive answers" in details and why in details
    assert drive.sent("efface purge") and not drive.sent("efface wipe")
    assert not any("--all-namespaces" in order for order in drive.sent("efface"))
    assert all(disk.holds_secrets() for disk in disks[:2])


MEANINGS_OF_PURGE = {
    1: "the drive reports a failure, or nothing proves that it was erased",
    3: "it was refused, and nothing was written",
    4: "the drive does not offer it, and nothing was written",
    5: "not all known blocks could be read since",
    6: "a known block is still there, whatever the drive reports",
}


@pytest.mark.parametrize("code", MEANINGS_OF_PURGE)
def test_a_drive_that_was_not_purged_is_overwritten_where_the_conductor_allows_it(drive_of, disks, code):
    drive = drive_of(disks[0])
    drive.purge(code)
    details = drive.clean()[1]["details"]
    assert f"{MEANINGS_OF_PURGE[code]}: as the drive answers" in details
    assert "agent_continue_if_secure_erase_failed does not allow to overwrite it" in details
    assert not drive.sent("efface wipe") and disks[0].holds_secrets()
    result, error = drive.clean(**MAY_GO_ON)
    assert error is None and not disks[0].holds_secrets()
    record = result["/dev/nvme0n1"]
    assert record["verdict"] == "wiped" and passes(record) == ["random", "constant"]
    before = record["not_purged"]
    assert (before["exit_code"], before["certificate"]) == (code, f"purge-{code}")
    assert MEANINGS_OF_PURGE[code] in before["reason"]
    assert "nvme format" in record["stock"]
    assert [each["verdict"] for each in certificates()].count("wiped") == 1, "both certificates are kept"


@pytest.mark.parametrize("code", [2, 7, 143])
def test_what_is_no_answer_of_the_drive_is_never_followed_by_an_overwrite(drive_of, disks, code):
    drive = drive_of(disks[0])
    drive.purge(code, record=False)
    details = drive.clean(**MAY_GO_ON)[1]["details"]
    assert "as the drive answers" in details
    assert not drive.sent("efface wipe") and disks[0].holds_secrets()


@pytest.mark.parametrize("code, record", [(1, True), (6, True), (1, False), (137, False), (0, False)])
def test_a_purge_that_was_begun_for_all_namespaces_is_not_begun_twice(drive_of, disks, code, record):
    drive = drive_of(*disks[:2])
    drive.purge(code, record=record)
    details = drive.clean()[1]["details"]
    assert "/dev/nvme0n1" in details and "/dev/nvme0n2" in details
    assert len(drive.sent("efface purge")) == 1
    assert code != 0 or "there is no certificate" in details
    if code in (1, 6):
        result, error = drive.clean(**MAY_GO_ON)
        assert error is None and {each["not_purged"]["exit_code"] for each in result.values()} == {code}
        assert len(drive.sent("efface purge")) == 2 and not any(disk.holds_secrets() for disk in disks[:2])


def test_where_the_overwrite_fails_too_the_error_has_both(drive_of, disks):
    drive = drive_of(disks[0])
    drive.purge(6)
    held = os.open(disks[0].node, os.O_RDWR | os.O_EXCL)
    try:
        details = drive.clean(**MAY_GO_ON)[1]["details"]
    finally:
        os.close(held)
    assert MEANINGS_OF_PURGE[6] in details and "has it open" in details


def test_what_is_no_nvme_namespace_by_the_real_efface_is_overwritten(drive_of, ramdisk, disks):
    drive = drive_of(disks[0])
    (ramdisk / "efface").unlink()
    (ramdisk / "efface").symlink_to(os.environ["EFFACE_UNDER_TEST"])
    assert drive.clean()[1] is not None and disks[0].holds_secrets()
    result, error = drive.clean(**MAY_GO_ON)
    assert error is None and result["/dev/nvme0n1"]["verdict"] == "wiped"
    assert result["/dev/nvme0n1"]["not_purged"]["exit_code"] == 4


STOCK_WOULD = """
import sys
from ironic_python_agent import config
from efface_openstack import nvme
print(nvme.stock_would("/dev/nvme0n1"))
"""


@pytest.mark.parametrize(
    "controller, answer",
    [
        ({"oacs": 0b10, "fna": 0b100}, "format /dev/nvme0n1 -s 2 -f, which erases this namespace"),
        ({"oacs": 0b10, "fna": 0b000}, "format /dev/nvme0n1 -s 1 -f, which erases this namespace"),
        ({"oacs": 0b10, "fna": 0b101}, "-s 2 -f, which erases all namespaces of the drive"),
        ({"oacs": 0b10, "fna": 0b010}, "-s 1 -f, which erases all namespaces of the drive"),
        ({"oacs": 0b01, "fna": 0b100}, "fail: the drive does not have Format NVM"),
        ({}, "fail: nvme id-ctrl does not show what the drive can do"),
    ],
)
def test_what_the_stock_agent_would_do_is_by_what_it_asks(ramdisk, controller, answer):
    drive(ramdisk, "nvme", json.dumps(controller))
    words = ["/srv/ironic/bin/python", "-c", STOCK_WOULD]
    assert answer in run(*words, env=environment(ramdisk, [])).stdout


@pytest.mark.parametrize("setting", [0b000, 0b100])
def test_stock_relies_on_the_exit_code_of_nvme_format(drive_of, disks, setting):
    drive = drive_of(disks[0])
    drive.controller(oacs=0b10, fna=setting)
    (drive.answers / "format").write_text("Success formatting namespace:1\n")
    stock(drive.ramdisk)
    result, error = drive.clean()
    assert error is None and result == {"/dev/nvme0n1": None}
    assert drive.sent("nvme format") == [f"nvme format /dev/nvme0n1 -s {2 if setting else 1} -f"]
    assert disks[0].holds_secrets(), "nothing was erased, and the node is clean"


def test_the_real_agent_over_its_own_api(ramdisk, disks):
    drive(ramdisk, "lshw", '{"id": "core", "class": "system"}')
    token = "a token that the conductor gave the agent"
    port = 29999
    words = ["/srv/ironic/bin/ironic-python-agent", "--listen_host", "127.0.0.1", "--listen_port", str(port)]
    words += ["--disk_wait_attempts", "0", "--nolisten_tls", "--noenable_auto_tls", "--agent_token", token]
    with open("/mnt/agent.log", "w") as log:
        agent = subprocess.Popen(words, env=environment(ramdisk, disks), stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}/v1/commands/"

        def answers():
            try:
                return requests.get(url, params={"agent_token": token}, timeout=20).ok
            except requests.ConnectionError:
                assert agent.poll() is None, Path("/mnt/agent.log").read_text()
                return False

        wait_for(answers)
        params = {"step": ERASE, "node": node(), "ports": []}
        asked = {"name": "clean.execute_clean_step", "params": params}
        query = {"wait": "true", "agent_token": token}
        answer = requests.post(url, params=query, json=asked, timeout=120).json()
        assert answer["command_status"] == "SUCCEEDED", answer
        result = answer["command_result"]["clean_result"]
        assert {record["verdict"] for record in result.values()} == {"wiped"} and len(result) == 3
    finally:
        agent.terminate()
        agent.wait()
    assert not any(disk.holds_secrets() for disk in disks)
