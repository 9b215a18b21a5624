"""The thin scripts, called as their systems call them."""

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from conftest import INTEGRATIONS, SECRET, run

MIB = 1 << 20
NODE = "/dev/loop201"


@pytest.fixture
def disk():
    """A loop device full of secrets; gives its image."""
    image = Path("/mnt/disk")
    image.write_bytes(SECRET * (4 * MIB // len(SECRET)))
    run("losetup", NODE, image)
    yield image
    run("losetup", "--detach", NODE)
    image.unlink()


@pytest.fixture
def mounted(disk):
    run("mkfs.ext4", "-q", NODE)
    Path("/mnt/mounted").mkdir(exist_ok=True)
    run("mount", NODE, "/mnt/mounted")
    yield disk
    run("umount", "/mnt/mounted")


def call(words, tmp_path, **environment):
    """With efface on the PATH, and no other tool of the tests."""
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    (tools / "efface").unlink(missing_ok=True)
    (tools / "efface").symlink_to(os.environ["EFFACE_UNDER_TEST"])
    environment = {"PATH": f"{tools}:/usr/sbin:/usr/bin", **environment}
    return run(*words, check=False, env=environment)


CLEANER = INTEGRATIONS / "kubernetes/efface-block-cleaner"


@pytest.mark.parametrize("arguments", [[], ["--method", "random", "--final-zero"]])
def test_kubernetes_a_volume_is_cleaned_and_again_without_harm(disk, tmp_path, arguments):
    # The discovery folder holds a link to the device.
    link = tmp_path / "volume"
    link.symlink_to(NODE)
    for _ in range(2):
        cleaned = call([CLEANER, *arguments], tmp_path, LOCAL_PV_BLKDEVICE=str(link))
        assert cleaned.returncode == 0, cleaned.stderr
        assert disk.read_bytes() == bytes(4 * MIB)


def test_kubernetes_a_volume_that_cannot_be_cleaned_is_not_exit_0(mounted, tmp_path):
    refused = call([CLEANER], tmp_path, LOCAL_PV_BLKDEVICE=NODE)
    assert refused.returncode == 3 and "/mnt/mounted" in refused.stderr
    assert call([CLEANER], tmp_path).returncode != 0
    assert call([CLEANER], tmp_path, LOCAL_PV_BLKDEVICE="").returncode != 0


MAAS = INTEGRATIONS / "maas/efface"
ACTION = INTEGRATIONS / "tinkerbell/efface-action"


@pytest.mark.parametrize(
    "words, environment",
    [
        ([CLEANER], {"LOCAL_PV_BLKDEVICE": "--help"}),
        ([MAAS, "--storage=--help"], {}),
        ([ACTION], {"DEST_DISK": "--help"}),
    ],
    ids=["kubernetes", "maas", "tinkerbell"],
)
def test_a_device_is_never_taken_for_an_option(words, environment, tmp_path):
    failed = call(words, tmp_path, **environment)
    assert failed.returncode == 2 and "--help" in failed.stderr, "help alone would be exit 0"


def metadata():
    """What MAAS reads of a script: the comment between its markers."""
    text = MAAS.read_text()
    block = text.split("# --- Start MAAS 1.0 script metadata ---\n")[1]
    block = block.split("# --- End MAAS 1.0 script metadata ---")[0]
    return yaml("".join(line[2:] + "\n" for line in block.splitlines()))


def yaml(text):
    reader = "import json, sys, yaml; print(json.dumps(yaml.safe_load(sys.stdin), default=str))"
    return json.loads(run("/srv/ironic/bin/python", "-c", reader, input=text).stdout)


def test_maas_reads_it_as_a_release_script_that_takes_a_disk():
    declared = metadata()
    assert (declared["name"], declared["script_type"]) == ("efface", "release")
    assert declared["parameters"]["storage"] == {"type": "storage"}
    assert declared["parallel"] == "instance", "one run for each disk"


def test_maas_a_released_disk_is_wiped_and_the_result_says_so(disk, tmp_path):
    result = tmp_path / "result.yaml"
    passed = call([MAAS, f"--storage={NODE}"], tmp_path, RESULT_PATH=str(result), TMPDIR=str(tmp_path))
    assert passed.returncode == 0, passed.stderr
    assert {file.name for file in tmp_path.iterdir()} == {"tools", result.name}, "nothing is left behind"
    assert disk.read_bytes() == bytes(4 * MIB)
    written = yaml(result.read_text())
    assert written["result"] == "passed" and written["results"]["verdict"] == "wiped"
    assert set(written["results"]) == set(metadata()["results"]), "MAAS refuses undeclared results"
    assert '"efface_record"' in passed.stdout


def test_maas_the_certificate_is_in_a_folder_of_its_own(disk, tmp_path):
    """Others write to the folder of temporary files too, and a name alone is not reserved."""
    (tmp_path / "tools").mkdir()
    Path(tmp_path, "tools/mktemp").write_text('#!/bin/sh\nexec /usr/bin/mktemp "$@" | tee /mnt/made\n')
    Path(tmp_path, "tools/mktemp").chmod(0o755)
    Path(tmp_path, "tools/rm").write_text(
        '#!/bin/sh\nstat --format=%a:%F $(cat /mnt/made) >/mnt/mode\nexec /usr/bin/rm "$@"\n'
    )
    Path(tmp_path, "tools/rm").chmod(0o755)
    assert call([MAAS, f"--storage={NODE}"], tmp_path, TMPDIR=str(tmp_path)).returncode == 0
    assert Path("/mnt/mode").read_text() == "700:directory\n"


def test_maas_a_disk_in_use_fails(mounted, tmp_path):
    result = tmp_path / "result.yaml"
    failed = call([MAAS, f"--storage={NODE}"], tmp_path, RESULT_PATH=str(result))
    assert failed.returncode == 3 and "/mnt/mounted" in failed.stderr
    assert yaml(result.read_text())["result"] == "failed"
    assert call([MAAS], tmp_path).returncode != 0
    assert call([MAAS, "--storage="], tmp_path).returncode != 0


def test_tinkerbell_the_disk_is_wiped_and_progress_is_reported(disk, tmp_path):
    done = call([ACTION], tmp_path, DEST_DISK=NODE, PROGRESS_INTERVAL_SECONDS="1")
    assert done.returncode == 0 and "wiped" in done.stdout, done.stderr
    assert disk.read_bytes() == bytes(4 * MIB)


def test_tinkerbell_a_failure_is_its_exit_code(mounted, tmp_path):
    assert call([ACTION], tmp_path, DEST_DISK=NODE).returncode == 3
    assert call([ACTION], tmp_path).returncode != 0


def ansible(tmp_path, arguments, *options):
    words = ["/srv/pytest/bin/ansible", "localhost", "--connection", "local", "--one-line"]
    words += ["--module-path", INTEGRATIONS / "ansible/library", "-m", "efface_wipe", "-a", arguments]
    interpreter = "ansible_python_interpreter=/usr/bin/python3"
    ran = call([*words, *options, "-e", interpreter], tmp_path, HOME="/mnt", LC_ALL="C.UTF-8")
    state, _, answer = ran.stdout.partition("=>")
    assert answer, ran.stderr
    return state, json.loads(answer)


def test_ansible_check_mode_writes_nothing_and_a_run_returns_the_certificate(disk, tmp_path):
    before = disk.read_bytes()
    certificates = tmp_path / "made" / "by the module"
    arguments = f"device={NODE} method=shred verify=full certificate_dir='{certificates}'"
    state, answer = ansible(tmp_path, arguments, "--check")
    assert "CHANGED" in state and answer["changed"] and disk.read_bytes() == before
    assert not certificates.parent.exists()
    state, answer = ansible(tmp_path, arguments)
    assert "CHANGED" in state and answer["certificate"]["verdict"] == "wiped"
    assert SECRET not in disk.read_bytes()
    [kept] = certificates.glob("efface-loop201-*.json")
    assert json.loads(kept.read_text()) == answer["certificate"] and answer["certificate_file"] == str(kept)


@pytest.mark.parametrize("options", [[], ["--check"]], ids=["run", "check"])
def test_ansible_nothing_is_written_if_the_certificate_cannot_be_kept(disk, tmp_path, options):
    before = disk.read_bytes()
    (tmp_path / "file").touch()
    state, answer = ansible(tmp_path, f"device={NODE} certificate_dir={tmp_path}/file/below", *options)
    assert "FAILED" in state and not answer["changed"] and "certificate_dir" in answer["msg"], answer
    assert disk.read_bytes() == before


# As after a failure in the middle, with the record of the real wipe.
FAILS = """#!/bin/sh
/usr/bin/env -u PATH {efface} "$@"
for word; do case $word in *.json) sed -i 's/"verdict": "wiped"/"verdict": "{verdict}"/' "$word" ;; esac; done
echo "efface: /dev/loop201: it ended with {code}" >&2
exit {code}
"""


@pytest.mark.parametrize(
    "code, verdict", [(1, "failed"), (5, "residue"), (6, "surviving"), (130, "interrupted")]
)
@pytest.mark.parametrize("folder", [True, False], ids=["kept", "returned"])
def test_ansible_a_failure_has_changed_the_disk_and_returns_its_certificate(
    disk, tmp_path, code, verdict, folder
):
    failing = tmp_path / "failing"
    failing.write_text(FAILS.format(efface=os.environ["EFFACE_UNDER_TEST"], code=code, verdict=verdict))
    failing.chmod(0o755)
    arguments = f"device={NODE} binary={failing}" + (f" certificate_dir={tmp_path}/certificates" * folder)
    state, answer = ansible(tmp_path, arguments)
    assert "FAILED" in state and answer["changed"] and answer["rc"] == code, answer
    assert answer["certificate"]["verdict"] == verdict and f"it ended with {code}" in answer["msg"]
    files = [str(file) for file in tmp_path.glob("certificates/*.json")]
    assert files == ([answer["certificate_file"]] if folder else [])


def test_ansible_evidence_is_signed_chained_and_names_the_operator(disk, tmp_path):
    efface = os.environ["EFFACE_UNDER_TEST"]
    run(efface, "key", "new", tmp_path / "key")
    details = tmp_path / "details.toml"
    details.write_text('[operator]\nname = "A. Smith"\n')
    arguments = f"device={NODE} certificate_dir={tmp_path} sign_key={tmp_path}/key"
    state, answer = ansible(tmp_path, f"{arguments} ledger={tmp_path}/ledger details={details}")
    assert "CHANGED" in state, answer
    assert answer["certificate"]["details"]["operator"]["name"] == "A. Smith"
    assert answer["certificate"]["chain"]["sequence"] == 1
    verify = [
        efface,
        "certificate",
        "verify",
        "--public-key",
        f"{tmp_path}/key.pub",
        answer["certificate_file"],
    ]
    assert run(*verify, check=False).returncode == 0


def test_ansible_a_device_is_never_taken_for_an_option(tmp_path):
    state, answer = ansible(tmp_path, "device=--help")
    assert "FAILED" in state and answer["rc"] == 2 and "--help" in answer["msg"] and not answer["changed"]


def test_ansible_the_module_prints_one_object_with_the_difference(disk, tmp_path):
    run("mkswap", NODE)
    asked = json.dumps({"ANSIBLE_MODULE_ARGS": {"device": NODE, "_ansible_diff": True}})
    words = ["/srv/pytest/bin/python", INTEGRATIONS / "ansible/library/efface_wipe.py", asked]
    answer = json.loads(call(words, tmp_path, HOME="/mnt").stdout)
    assert answer["diff"] == {"before": "it held swap\n", "after": answer["certificate"]["claim"] + "\n"}


def test_ansible_a_refusal_fails_the_task_and_changed_nothing(mounted, tmp_path):
    state, answer = ansible(tmp_path, f"device={NODE}")
    assert (
        "FAILED" in state and answer["rc"] == 3 and not answer["changed"] and "/mnt/mounted" in answer["msg"]
    )
    assert answer["certificate"]["verdict"] == "refused"


UNIT = INTEGRATIONS / "systemd/efface@.service"


def test_systemd_the_unit_notifies_when_it_has_begun(disk, tmp_path):
    [line] = [line for line in UNIT.read_text().splitlines() if line.startswith("ExecStart=")]
    words = line.removeprefix("ExecStart=/usr/bin/").replace("%f", NODE).replace("$OPTIONS", "--verify full")
    notify = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(notify))
        done = call(words.split(), tmp_path, NOTIFY_SOCKET=str(notify), INVOCATION_ID="1")
        assert done.returncode == 0, done.stderr
        bound.settimeout(1)
        assert b"READY=1" in bound.recv(4096)
    assert disk.read_bytes() == bytes(4 * MIB)


def test_systemd_knows_every_word_of_the_unit(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    shutil.copy(UNIT, tmp_path)
    unit = tmp_path / "efface@dev-loop201.service"
    shutil.copy(UNIT, unit)
    Path("/usr/bin/efface").touch(mode=0o755)
    verified = run("systemd-analyze", "verify", "--man=no", unit, check=False)
    assert verified.stderr == "", verified.stderr


def test_the_ramdisk_element_installs_binary_and_manager(tmp_path):
    element = INTEGRATIONS / "openstack/diskimage-builder/efface"
    [wheel] = Path("/srv/wheel").glob("*.whl")
    hooks = Path("/tmp/in_target.d")
    environment = {**os.environ, "TMP_HOOKS_PATH": str(hooks), "DIB_EFFACE_WHEEL": str(wheel)}
    environment["DIB_EFFACE_BINARY"] = os.environ["EFFACE_UNDER_TEST"]
    try:
        run(element / "extra-data.d/50-efface", env=environment)
        # The agent's environment, as its own element lays it out.
        run("/usr/bin/python3", "-m", "venv", "/opt/ironic-python-agent")
        run(element / "install.d/70-efface")
        listed = run("/opt/ironic-python-agent/bin/pip", "list").stdout
        assert "efface-openstack" in listed and os.access("/usr/bin/efface", os.X_OK)
    finally:
        shutil.rmtree("/opt/ironic-python-agent", ignore_errors=True)
        shutil.rmtree(hooks, ignore_errors=True)


@pytest.fixture
def chroot(tmp_path):
    """Nothing but the static binary, /proc, /sys and one device."""
    static = Path(os.environ["EFFACE_STATIC"])
    root = tmp_path / "root"
    for folder in ("proc", "sys", "dev", "tmp"):
        (root / folder).mkdir(parents=True)
    shutil.copy(static, root / "efface")
    # With what scripts/seen may have mounted over a process that cannot be read.
    for folder in ("proc", "sys", "dev"):
        run("mount", "--rbind", "--make-rprivate", f"/{folder}", root / folder)
    yield lambda *words: run("chroot", root, "/efface", *words, check=False)
    for folder in ("dev", "sys", "proc"):
        run("umount", "--recursive", root / folder)


def test_static_no_library_and_a_few_megabytes():
    static = Path(os.environ["EFFACE_STATIC"])
    assert "statically linked" in subprocess.run(["ldd", static], capture_output=True, text=True).stdout
    assert static.stat().st_size < 10 * MIB


def test_static_in_an_empty_chroot_a_free_device_is_wiped(chroot, disk):
    wiped = chroot("wipe", NODE, "--yes", "--quiet")
    assert wiped.returncode == 0, wiped.stderr
    assert disk.read_bytes() == bytes(4 * MIB)


def test_static_in_an_empty_chroot_a_mounted_device_is_refused(chroot, mounted):
    refused = chroot("wipe", NODE, "--yes", "--quiet")
    assert refused.returncode == 3 and "mounted" in refused.stderr, refused.stderr


def test_static_without_proc_it_refuses_and_the_record_is_kept(tmp_path):
    shutil.copy(os.environ["EFFACE_STATIC"], tmp_path / "efface")
    (tmp_path / "disk").write_bytes(b"x" * MIB)
    options = ["--image", "--yes", "--quiet", "--certificate-to", "/record.json"]
    refused = run("chroot", tmp_path, "/efface", "wipe", "/disk", *options, check=False)
    assert refused.returncode == 3 and "/proc are mounted" in refused.stderr, refused.stderr
    assert json.loads((tmp_path / "record.json").read_text())["verdict"] == "refused"
    assert (tmp_path / "disk").read_bytes() == b"x" * MIB


def test_static_it_recognizes_a_file_system(chroot, disk):
    run("mkfs.ext4", "-q", NODE)
    assert '"ext4"' in chroot("plan", NODE, "--json").stdout or "ext4" in chroot("plan", NODE).stdout
