"""Real cinder, real LVM, sudo and rootwrap: what remains of a deleted volume's bytes."""

import json
import os
import re
import shutil
import signal
import sqlite3
import uuid
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from conftest import (
    GFS2,
    GFS2_AT,
    GROUP,
    INTEGRATIONS,
    PROJECT,
    STOCK,
    Volume,
    certificates,
    job_states,
    jobs,
    processes,
    run,
    wait_for,
    writers,
)

DROP_IN = INTEGRATIONS / "openstack/systemd/efface.conf"
SLOW = {"efface_rate": "128MiB/s", "efface_yield": "false", "efface_verify": "none"}


def test_a_deleted_volume_is_zeroed_and_has_a_certificate(cinder):
    volume, neighbour = cinder.create(Volume()), cinder.create(Volume())
    code, out, log = cinder.delete(volume)
    assert code == 0, out + log
    assert not volume.exists() and volume.secrets() == 0
    assert neighbour.exists() and neighbour.secrets() == 3
    [record] = certificates()
    assert record["verdict"] == "wiped"
    job = record["details"]["job"]
    assert (job["volume_id"], job["tenant"]) == (volume.id, PROJECT)


@pytest.mark.parametrize("method", ["shred", "random"])
def test_the_chosen_method_is_used(cinder, method):
    volume = cinder.create(Volume(), extents=16)
    assert cinder.delete(volume, efface_method=method, efface_verify="full")[0] == 0
    [record] = certificates()
    assert (record["verdict"], record["method"]) == ("wiped", method)
    assert volume.secrets() == 0


def test_volume_clear_size_clears_the_start_alone(cinder):
    volume = cinder.create(Volume())
    assert cinder.delete(volume, volume_clear_size=64)[0] == 0
    assert not volume.exists() and volume.secrets() == 2
    [record] = certificates()
    assert record["job"]["plan"]["area"] == {"start": 0, "end": 64 << 20}


def test_a_volume_smaller_than_volume_clear_size_is_cleared_whole(cinder):
    volume = cinder.create(Volume(), extents=16)
    assert cinder.delete(volume, volume_clear_size=1024)[0] == 0
    assert not volume.exists() and volume.secrets() == 0


def test_volume_clear_none_clears_nothing(cinder):
    volume = cinder.create(Volume())
    assert cinder.delete(volume, volume_clear="none")[0] == 0
    assert not volume.exists() and volume.secrets() == 3 and not certificates()


def test_c1_the_device_is_flushed_before_the_volume_goes(cinder, traced):
    calls = traced("efface")
    volume = cinder.create(Volume(), extents=16)
    assert cinder.delete(volume)[0] == 0
    opened = re.findall(r"openat\(.*\bO_DIRECT\b.* = (\d+)", calls())
    flushed = re.findall(r"\bf(?:data)?sync\((\d+)", calls())
    assert set(opened) & set(flushed)


def test_c1_stock_flushes_nothing(cinder, traced):
    calls = traced("dd")
    volume = cinder.create(Volume())
    assert cinder.delete(volume, volume_driver=STOCK)[0] == 0
    assert re.search(r"\bO_DIRECT\b", calls()) and "sync(" not in calls()


def at_once(cinder, count, **options):
    """This many volumes are deleted at the same time."""
    volumes = [cinder.create(Volume(), extents=32) for _ in range(count)]
    running = [cinder.start(["delete_volume", each.fields()], **options) for each in volumes]
    assert [process.wait() for process in running] == [0] * count
    assert not any(volume.exists() or volume.secrets() for volume in volumes)


# At a rate that has them write long enough to meet; those that yield take turns on one disk.
@pytest.mark.parametrize("pace, writers", [({"efface_rate": "96MiB/s"}, 2), ({"efface_yield": "true"}, 1)])
def test_c2_two_slots_are_two_writers(cinder, pace, writers):
    at_once(cinder, 8, efface_slots=2, efface_verify="none", **pace)
    # Those that wait have their device open already: the certificates say which wrote when.
    written = [step for record in certificates() for step in record["job"]["steps"]]
    assert len(written) == 8
    at_any_start = [
        sum(other["started"] <= step["started"] < other["ended"] for other in written) for step in written
    ]
    assert max(at_any_start) == writers


DD_WAITS_FOR_FOUR = """
case "$*" in *count=0*) exec $REAL "$@" ;; esac
touch /mnt/dd-of-$$
for _ in $(seq 600); do
    [ "$(ls /mnt/dd-of-* | wc -l)" -lt 4 ] || exec $REAL "$@"
    sleep 0.1
done
exit 1
"""


def test_c2_stock_has_as_many_as_there_are_deletes(cinder, wrapped):
    wrapped("dd", DD_WAITS_FOR_FOUR)
    at_once(cinder, 4, volume_driver=STOCK, volume_clear_size=128)


def killed(cinder, volume, fields=None, **options):
    """A service that was killed while it cleared the volume; gives the wiper that it left behind."""
    first = cinder.start(["delete_volume", volume.fields(**(fields or {}))], **options)
    wiper = wait_for(writers)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert writers() == wiper
    return next(iter(wiper))


def written_bytes(process):
    """What a process has sent to the disks below (proc(5))."""
    lines = Path(f"/proc/{process}/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["write_bytes"])


def test_c3_the_next_delete_waits_for_a_wiper_that_was_left_behind(cinder):
    # Some seconds of work: longer than the driver sleeps between two checks.
    volume = cinder.create(Volume(), extents=256)
    wiper = killed(cinder, volume, **SLOW)
    second = cinder.start(["delete_volume", volume.fields()], **SLOW)
    seen = set()
    while second.poll() is None:
        seen.add(frozenset(writers()))
    out, log = second.communicate()
    assert second.returncode == 0, out + log
    assert max(map(len, seen)) == 1 and frozenset({wiper}) in seen, "never two writers"
    assert not volume.exists() and volume.secrets() == 0
    assert {record["verdict"] for record in certificates()} == {"wiped"}


def test_c3_a_wiper_that_was_killed_too_is_resumed(cinder):
    # An epoch is some GiB: what ends well within one goes on from its start, and from the byte it came to.
    volume = cinder.create(Volume(), extents=128)
    wiper = killed(cinder, volume, **SLOW)
    wait_for(lambda: written_bytes(wiper) > 1 << 20)
    os.kill(wiper, signal.SIGTERM)
    wait_for(lambda: not processes("efface"))
    [interrupted] = certificates()
    assert interrupted["verdict"] == "terminated"
    done = interrupted["job"]["steps"][0]["bytes"]
    code, out, log = cinder.delete(volume, **SLOW)
    assert code == 0, out + log
    assert not volume.exists() and volume.secrets() == 0
    [wiped] = [record for record in certificates() if record["verdict"] == "wiped"]
    assert 0 < done < 512 << 20 and wiped["job"]["resumed"], "it was resumed"


def requested(seconds_ago=0):
    """What the API writes into a volume's row when its delete is requested."""
    when = datetime.now(timezone.utc) - timedelta(seconds=seconds_ago)
    return {"terminated_at": when.isoformat(), "status": "deleting"}


CHECKED = {**SLOW, "efface_verify": "standard"}


def test_a_volume_that_a_left_behind_wiper_has_cleared_is_not_wiped_again(cinder):
    volume = cinder.create(Volume(), extents=64)
    since = requested(seconds_ago=2)
    killed(cinder, volume, fields=since, **CHECKED)
    code, out, log = cinder.delete(volume, since, **CHECKED)
    assert code == 0, out + log
    assert not volume.exists() and volume.secrets() == 0
    assert [record["verdict"] for record in certificates()] == ["wiped"]
    assert f"Volume {volume.id} was cleared by a process that was left behind" in out


@pytest.mark.parametrize(
    "since, again",
    [
        ({}, {}),
        # An earlier delete failed, and a migration leaves it behind now.
        (requested() | {"status": "available"}, {}),
        # It was in use in between, and deleted once more.
        (requested(seconds_ago=-3600), {}),
        (requested(), {"efface_method": "random"}),
        (requested(), {"efface_verify": "none"}),
        (requested(), {"volume_clear_size": 64}),
    ],
)
def test_a_record_of_another_delete_or_order_does_not_count(cinder, since, again):
    volume = cinder.create(Volume(), extents=64)
    killed(cinder, volume, **CHECKED)
    code, out, log = cinder.delete(volume, since, **{**CHECKED, **again})
    assert code == 0, out + log
    assert not volume.exists() and len(certificates()) == 2


def test_a_volume_that_is_not_what_its_record_says_is_wiped_again(cinder):
    volume = cinder.create(Volume(), extents=64)
    since = requested(seconds_ago=2)
    killed(cinder, volume, fields=since, **CHECKED)
    wait_for(lambda: not processes("efface"))
    volume.fill()
    code, out, log = cinder.delete(volume, since, **CHECKED)
    assert code == 0, out + log
    assert not volume.exists() and volume.secrets() == 0
    assert len(certificates()) == 2 and "is wiped again: it is not what efface-" in out


def test_a_wiper_that_was_left_behind_in_the_queue_is_waited_for(cinder):
    """For longer than a volume may be busy."""
    queue = {**SLOW, "efface_rate": "64MiB/s", "efface_slots": 1}
    volumes = [cinder.create(Volume(), extents=256), cinder.create(Volume(), extents=16)]
    first = cinder.start(["delete_volume", volumes[0].fields()], **queue)
    wait_for(lambda: "running" in job_states())
    [at_work] = writers()
    second = cinder.start(["delete_volume", volumes[1].fields()], **queue)
    wait_for(lambda: "waiting" in job_states())
    os.kill(second.pid, signal.SIGKILL)
    second.wait()
    left = processes("efface")
    assert len(left) == 2 and sorted(job_states()) == ["running", "waiting"]
    # It does not end before the third service has looked.
    os.kill(at_work, signal.SIGSTOP)
    log = Path("/mnt/again.log")
    with log.open("w") as into:
        again = cinder.start(["delete_volume", volumes[1].fields()], into=into, **queue)
    wait_for(lambda: "which is waiting" in log.read_text())
    os.kill(at_work, signal.SIGCONT)
    wait_for(lambda: "waiting" not in job_states())
    assert not set(processes("efface")) - set(left), "no other one was started while it was in the queue"
    first.communicate(timeout=120)
    assert [first.returncode, again.wait(timeout=120)] == [0, 0], log.read_text()
    assert not any(volume.exists() or volume.secrets() for volume in volumes)


def test_the_journal_of_a_volume_that_is_gone_is_forgotten(cinder):
    volume, other = cinder.create(Volume(), extents=128), cinder.create(Volume(), extents=16)
    wiper = killed(cinder, volume, **{**SLOW, "efface_rate": "8MiB/s"})
    wait_for(lambda: job_states() == ["running"])
    os.kill(wiper, signal.SIGKILL)
    wait_for(lambda: job_states() == ["resumable"])
    # The ring of a killed process holds its device for some milliseconds.
    wait_for(lambda: run("lvremove", "-f", f"{GROUP}/{volume.name}", check=False).returncode == 0)
    assert cinder.delete(other)[0] == 0
    assert job_states() == ["ended"]


@pytest.mark.parametrize("offload, warned", [("True", False), ("False", True)])
def test_a_service_that_deletes_before_it_is_up_says_so(cinder, offload, warned):
    code, out, log = cinder.call(DEFAULT={"volume_service_inithost_offload": offload})
    assert code == 0 and ("volume_service_inithost_offload = True" in out) == warned, out + log
    # The drop-in says so before the service starts.
    [check] = [line for line in DROP_IN.read_text().splitlines() if "volume_service" in line and "=" in line]
    command = check.removeprefix("ExecStartPre=").replace("$$", "$")
    ran = run("bash", "-c", command)
    assert ("<4>efface: set volume_service_inithost_offload" in ran.stdout) == warned


def test_c5_the_rate_limit_is_respected(cinder):
    volume = cinder.create(Volume(), extents=64)
    assert cinder.delete(volume, **SLOW)[0] == 0
    [record] = certificates()
    [step] = record["job"]["steps"]
    assert step["milliseconds"] >= 1800, "256 MiB at 128 MiB/s are two seconds"


def test_c7_progress_is_logged(cinder):
    volume = cinder.create(Volume(), extents=192)
    running = cinder.start(["delete_volume", volume.fields()], **SLOW)
    wait_for(writers)
    [job] = wait_for(jobs)
    assert job["state"] in ("waiting", "running") and job["device"] == str(volume.node)
    wait_for(lambda: "running" in job_states())
    out, log = running.communicate(timeout=120)
    assert running.returncode == 0, out + log
    logged = re.findall(rf"{volume.node}: step 1 of 1 .*, (\d+) % of all, about \d+ s left", out + log)
    assert len(logged) >= 2 and [int(each) for each in logged] == sorted(int(each) for each in logged), (
        out + log
    )


def test_c4_the_size_is_that_of_the_device(cinder):
    volume = cinder.create(Volume(size_gib=2), extents=384)
    code, out, _ = cinder.delete(volume, volume_driver=STOCK)
    assert code == 1 and volume.exists(), "stock takes the 1.5 GiB for the 2 GiB of its database"
    volume.fill()
    code, out, log = cinder.delete(volume)
    assert code == 0, out + log
    assert not volume.exists() and volume.secrets() == 0


@pytest.fixture
def vanishing(wrapped):
    """A volume's node is gone by the time the wiper is called: after the driver has looked for it."""
    back = []

    def vanish(volume, program):
        back.append((volume.node, volume.node.resolve()))
        # Not when the driver starts.
        gone = f'case "$1" in jobs | --version) ;; *) rm -f {volume.node} ;; esac'
        wrapped(program, f'{gone}\nexec $REAL "$@"')

    yield vanish
    for node, where in back:
        node.unlink(missing_ok=True)
        node.symlink_to(where)


def test_c6_stock_makes_a_file_of_a_missing_node(cinder, vanishing):
    volume = cinder.create(Volume())
    vanishing(volume, "dd")
    code, _, _ = cinder.delete(volume, volume_driver=STOCK, volume_clear_size=64)
    assert code == 0 and volume.node.is_file() and volume.secrets() == 3


def test_c6_a_missing_node_is_an_error_and_no_file(cinder, vanishing):
    volume = cinder.create(Volume())
    vanishing(volume, "efface")
    code, out, _ = cinder.delete(volume)
    assert code == 1 and str(volume.node) in out and "there is no such device" in out
    assert not volume.node.exists() and volume.exists() and volume.secrets() == 3


def test_c6_a_node_that_was_missing_before_is_an_error_and_the_delete_can_be_repeated(cinder):
    volume = cinder.create(Volume())
    where = volume.node.resolve()
    volume.node.unlink()
    code, out, _ = cinder.delete(volume)
    assert code == 1 and str(volume.node) in out and volume.exists()
    assert not volume.node.exists()
    volume.node.symlink_to(where)
    assert cinder.delete(volume)[0] == 0 and volume.secrets() == 0


def test_a_volume_that_cannot_be_cleared_is_kept_and_the_reason_is_reported(cinder):
    volume = cinder.create(Volume())
    run("mkfs.ext4", "-q", volume.node)
    Path("/mnt/mounted").mkdir(exist_ok=True)
    run("mount", volume.node, "/mnt/mounted")
    try:
        code, out, _ = cinder.delete(volume)
    finally:
        run("umount", "/mnt/mounted")
    assert code == 1 and volume.exists()
    for reported in (str(volume.node), "refused", "/mnt/mounted", "umount"):
        assert reported in out, out
    assert cinder.delete(volume)[0] == 0
    assert not volume.exists() and volume.secrets() == 0


def vmfs(volume):
    # LVM of VMFS, as libblkid knows it: four bytes that any tenant can write.
    volume.write(1 << 20, bytes.fromhex("0d d0 01 c0"))


def gfs2(volume):
    volume.write(GFS2_AT, GFS2)


@pytest.mark.parametrize("shared, name", [(gfs2, "gfs2"), (vmfs, "VMFS_volume_member")])
def test_a_shared_file_system_keeps_no_volume_that_cinder_knows_as_detached(cinder, shared, name):
    volume = cinder.create(Volume(), extents=16)
    shared(volume)
    code, out, log = cinder.delete(volume)
    assert code == 0, out + log
    assert not volume.exists() and volume.secrets() == 0
    assert f"Volume {volume.id} is cleared although it holds {name}" in out
    assert "(--force shared-fs)" in out
    [record] = certificates()
    assert [forced["force"] for forced in record["findings"]["forced"]] == ["shared-fs"]


@pytest.mark.parametrize("status", ["attaching", "reserved", "error_detaching"])
def test_a_shared_file_system_keeps_a_volume_that_a_server_may_have(cinder, status):
    volume = cinder.create(Volume(), extents=16)
    gfs2(volume)
    code, out, _ = cinder.delete(volume, {"attach_status": status})
    assert code == 1 and volume.exists() and "gfs2" in out, out
    assert cinder.delete(volume)[0] == 0
    assert not volume.exists() and volume.secrets() == 0


def test_a_snapshots_store_is_split_off_and_cleared(cinder):
    snapshot = cinder.create(Volume(template="_snapshot-%s"), extents=16)
    fields = {"id": snapshot.id, "project_id": PROJECT, "volume_size": 1, "volume_id": snapshot.id}
    code, out, log = cinder.call(["delete_snapshot", fields])
    assert code == 0, out + log
    assert not snapshot.exists() and snapshot.secrets() == 0
    commands = Path("/run/lvm-without-device-mapper").read_text().splitlines()
    split, remove = (
        next(index for index, line in enumerate(commands) if word in line and snapshot.name in line)
        for word in ("lvconvert --splitsnapshot", "lvremove")
    )
    assert split < remove


@pytest.fixture
def thin_pool(lvs):
    """Says what lvs answers for the thin pool: none can be made without device-mapper."""
    return lambda line: lvs(f'case "$*" in *-pool) echo "{line}"; exit ;; esac')


def deleted_thin(cinder, **options):
    """The record of a volume that cinder takes for a thin one."""
    volume = cinder.create(Volume(), extents=16)
    code, out, log = cinder.delete(volume, {"thin": True}, **options)
    assert code == 0, out + log
    assert not volume.exists() and volume.secrets() == 0
    [record] = certificates()
    assert record["verdict"] == "wiped"
    return record, out


@pytest.mark.parametrize(
    "pool, method",
    [
        ("1|passdown|10.00|65536", "discard"),
        ("1|nopassdown||65536", "discard"),
        ("0|passdown|10.00|65536", "zero"),
        ("1|ignore|10.00|65536", "zero"),
        # A part of a chunk is not given back.
        ("1|passdown|10.00|1073741824", "zero"),
        ("|ignore|100.00|65536", "zero"),
    ],
)
def test_a_thin_volume_is_cleared_by_what_its_pool_does(cinder, thin_pool, pool, method):
    thin_pool(pool)
    record, out = deleted_thin(cinder, efface_skip_zeroes="true")
    assert record["method"] == method and "is full" not in out


def test_in_a_full_pool_a_volume_is_discarded_and_the_log_says_what_stays(cinder, thin_pool):
    thin_pool("0|passdown|100.00|65536")
    record, out = deleted_thin(cinder)
    assert record["method"] == "discard" and "is full: volume" in out
    assert "Discard guarantees nothing" in " ".join(record["limitations"])


def test_a_discard_is_always_read(cinder, thin_pool):
    thin_pool("1|passdown|10.00|65536")
    assert deleted_thin(cinder, efface_verify="none")[0]["job"]["verification"] is not None


def test_volumes_of_a_pool_that_cannot_be_read_are_overwritten(cinder):
    record, out = deleted_thin(cinder)
    assert record["method"] == "zero" and "cannot be read, its volumes are overwritten" in out


@pytest.mark.parametrize("how, method", [("discard", "discard"), ("overwrite", "zero")])
def test_a_thin_volume_is_cleared_as_the_option_says(cinder, thin_pool, how, method):
    thin_pool("0|ignore|10.00|65536" if how == "discard" else "1|passdown|10.00|65536")
    assert deleted_thin(cinder, efface_thin=how)[0]["method"] == method


@pytest.mark.parametrize("options", [{"efface_thin": "none"}, {"volume_clear": "none"}])
def test_nothing_of_a_thin_volume_is_cleared_where_that_is_set(cinder, options):
    kept = cinder.create(Volume(), extents=16)
    assert cinder.delete(kept, {"thin": True}, **options)[0] == 0
    assert not kept.exists() and kept.secrets() == 3 and not certificates()


def test_zeroes_of_a_thick_volume_are_skipped_where_that_is_set(cinder):
    volume = cinder.create(Volume(), extents=16)
    assert cinder.delete(volume, efface_skip_zeroes="true")[0] == 0
    assert not volume.exists() and volume.secrets() == 0
    [record] = certificates()
    assert "all data that was not zero (3.00 MiB) was overwritten" in record["claim"]
    assert "Blocks that were read as zeroes were not written" in " ".join(record["limitations"])


def test_zeroes_are_offloaded_where_that_is_set(cinder):
    volume = cinder.create(Volume(), extents=16)
    assert cinder.delete(volume, efface_zero_with="offload")[0] == 0
    assert not volume.exists() and volume.secrets() == 0
    [record] = certificates()
    assert "write-zeroes" in record["claim"] and "overwritten" not in record["claim"]


def encrypted(cinder):
    volume = cinder.create(Volume(), extents=16)
    run(
        "cryptsetup",
        "luksFormat",
        "--batch-mode",
        "--type=luks1",
        "--pbkdf-force-iterations=1000",
        "--key-file=-",
        volume.node,
        input="0123456789abcdef",
    )
    volume.encrypt()
    return volume


def test_an_encrypted_volume_is_overwritten_by_default(cinder):
    volume = encrypted(cinder)
    assert cinder.delete(volume, KEY)[0] == 0
    assert [record["method"] for record in certificates()] == ["zero"] and volume.secrets() == 0


def test_the_key_is_destroyed_and_then_the_volume_is_zeroed(cinder):
    volume = encrypted(cinder)
    code, out, log = cinder.delete(volume, KEY, efface_encrypted="destroy_key_then_zero")
    assert code == 0, out + log
    records = {record["method"]: record for record in certificates()}
    assert records["destroy-key"]["job"]["plan"]["keys"]["external_key"] == KEY["encryption_key_id"]
    assert records["zero"]["verdict"] == "wiped" and volume.secrets() == 0


KEY = {"encryption_key_id": "11111111-2222-3333-4444-555555555555"}


@pytest.mark.parametrize(
    "accepted, forced",
    [
        ({}, []),
        ({"efface_accept_unseen": "true"}, ["unseen"]),
        ({"efface_copies": "accept"}, ["copies"]),
    ],
)
def test_destroy_key_gets_the_same_forces_as_wipe_and_its_refusal_keeps_the_volume(
    cinder, wrapped, accepted, forced
):
    volume = encrypted(cinder)
    words = Path("/mnt/destroy-key-words")
    wrapped("efface", f'[ "$1" != destroy-key ] || {{ echo "$*" >{words}; exit 3; }}\nexec $REAL "$@"')
    code, out, log = cinder.delete(volume, KEY, efface_encrypted="destroy_key_then_zero", **accepted)
    assert code == 1 and volume.exists() and volume.secrets(), out + log
    assert re.findall(r"--force=([a-z-]+)", words.read_text()) == ["shared-fs", *forced]


@pytest.mark.parametrize("option", ["destroy_key_then_zero", "destroy_key"])
def test_a_volume_without_a_header_is_zeroed(cinder, database, option):
    volume = cinder.create(Volume(), extents=16)
    code, out, log = cinder.delete(volume, KEY, efface_encrypted=option)
    assert code == 0, out + log
    assert not volume.exists() and volume.secrets() == 0


def test_the_key_alone_is_destroyed_where_cinder_knows_of_no_copy(cinder, database):
    volume = encrypted(cinder)
    code, out, log = cinder.delete(volume, KEY, efface_encrypted="destroy_key")
    assert code == 0, out + log
    assert not volume.exists() and volume.secrets() == 2
    [record] = certificates()
    assert record["method"] == "destroy-key" and "header" in " ".join(record["limitations"])
    assert record["job"]["plan"]["keys"]["external_key"] == KEY["encryption_key_id"]


@pytest.mark.parametrize("status", ["deleting", "target:0a1b2c3d-1111-2222-3333-444455556666"])
def test_one_place_of_a_migration_is_overwritten_since_the_other_has_its_key(cinder, database, status):
    volume = encrypted(cinder)
    fields = {**KEY, "migration_status": status}
    code, out, log = cinder.delete(volume, fields, efface_encrypted="destroy_key")
    assert code == 0, out + log
    assert not volume.exists() and volume.secrets() == 0
    assert "its key is also in the other place of a migration" in out


def insert(database, table, **fields):
    """A row that cinder might have written; gives its id."""
    row = {"id": str(uuid.uuid4()), "project_id": PROJECT, "user_id": PROJECT, "deleted": False}
    if table != "backups":
        row |= {"use_quota": True, "volume_type_id": str(uuid.uuid4())}
    row |= fields
    with closing(sqlite3.connect(database)) as connection, connection:
        names, marks = ", ".join(row), ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(row.values()))
    return row["id"]


def of_a_deleted_snapshot(database, volume):
    snapshot = insert(database, "snapshots", volume_id=volume.id, deleted=True)
    insert(database, "volumes", snapshot_id=snapshot)


def of_a_deleted_clone(database, volume):
    clone = insert(database, "volumes", source_volid=volume.id, deleted=True)
    insert(database, "volumes", source_volid=clone)


def of_a_deleted_clone_of_a_deleted_snapshot(database, volume):
    snapshot = insert(database, "snapshots", volume_id=volume.id, deleted=True)
    clone = insert(database, "volumes", snapshot_id=snapshot, deleted=True)
    insert(database, "backups", volume_id=clone)


@pytest.mark.parametrize(
    "copy, called",
    [
        (of_a_deleted_clone, "a clone"),
        (of_a_deleted_clone_of_a_deleted_snapshot, "a backup"),
        (lambda database, volume: insert(database, "snapshots", volume_id=volume.id), "a snapshot"),
        (lambda database, volume: insert(database, "backups", volume_id=volume.id), "a backup"),
        (lambda database, volume: insert(database, "volumes", source_volid=volume.id), "a clone"),
        (of_a_deleted_snapshot, "a volume made from a snapshot"),
    ],
)
def test_a_volume_whose_key_has_copies_is_overwritten(cinder, database, copy, called):
    volume = encrypted(cinder)
    copy(database, volume)
    code, out, log = cinder.delete(volume, KEY, efface_encrypted="destroy_key")
    assert code == 0, out + log
    assert not volume.exists() and volume.secrets() == 0
    assert f"Volume {volume.id} is overwritten: its key is also in {called}\n" in out


@pytest.mark.parametrize("source", ["source_volid", "snapshot_id"])
def test_a_clone_is_overwritten_since_what_it_was_made_from_has_its_key(cinder, database, source):
    volume = encrypted(cinder)
    fields = {**KEY, source: str(uuid.uuid4())}
    code, out, log = cinder.delete(volume, fields, efface_encrypted="destroy_key")
    assert code == 0, out + log
    assert not volume.exists() and volume.secrets() == 0
    assert "its key is also in the volume that it was cloned from" in out


@pytest.mark.parametrize("flag, priority", [("-c3", "idle"), ("-c2", "best-effort: prio 4")])
def test_the_io_priority_is_the_wipers_own(cinder, flag, priority):
    volume = cinder.create(Volume(), extents=32)
    options = {**SLOW, "efface_rate": "32MiB/s", "volume_clear_ionice": flag}
    running = cinder.start(["delete_volume", volume.fields()], **options)
    [wiper] = wait_for(writers)
    wait_for(lambda: run("ionice", "-p", wiper, check=False).stdout.strip() == priority, 2)
    out, log = running.communicate(timeout=60)
    assert running.returncode == 0, out + log


@pytest.mark.parametrize(
    "options",
    [
        {"volume_clear_ionice": "-c9"},
        {"volume_clear_ionice": "-c1"},
        {"volume_clear_ionice": "-c2 -n"},
        {"efface_thin": "discard", "efface_verify": "none"},
        {"efface_zero_with": "offload", "efface_method": "random"},
        {"efface_zero_with": "offload", "efface_skip_zeroes": "true"},
    ],
)
def test_an_invalid_setting_stops_the_driver(cinder, options):
    code, out, _ = cinder.call(**options)
    assert code == 1 and "InvalidConfigurationValue" in out


def test_the_config_generator_knows_every_option(machine):
    words = ["/srv/cinder/bin/oslo-config-generator", "--namespace", "efface_openstack.cinder"]
    sample = run(*words).stdout
    assert "[backend_defaults]" in sample
    page = (INTEGRATIONS / "openstack/README.md").read_text()
    options = re.findall(r"^#(efface_\w+) =", sample, re.MULTILINE)
    assert len(options) > 10 and [name for name in options if f"`{name}`" not in page] == []


@pytest.fixture
def signing_key():
    key = Path("/etc/efface/signing-key")
    key.parent.mkdir()
    run("efface", "key", "new", key)
    yield key
    shutil.rmtree(key.parent)


def test_what_the_driver_has_signed_is_verified_with_the_public_key(cinder, signing_key):
    volume = cinder.create(Volume(), extents=16)
    code, out, log = cinder.delete(volume, efface_sign="true")
    assert code == 0, out + log
    [file] = Path("/var/lib/efface/certificates").glob("*.json")
    public = ["--public-key", f"{signing_key}.pub"]
    assert run("efface", "certificate", "verify", *public, file, check=False).returncode == 0


@pytest.mark.parametrize(
    "change, wrong",
    [
        (lambda key: key.chmod(0o640), "it belongs to user 0 with mode 640"),
        (lambda key: shutil.chown(key, "cinder"), "with mode 600"),
        (lambda key: key.unlink() or key.mkdir(mode=0o700), "it belongs to user 0 with mode 700"),
        (lambda key: key.parent.chmod(0o700), "cannot be examined"),
    ],
)
def test_a_signing_key_that_others_may_use_stops_the_driver(cinder, signing_key, change, wrong):
    assert cinder.call(efface_sign="true")[0] == 0
    change(signing_key)
    code, out, _ = cinder.call(efface_sign="true")
    assert code == 1 and str(signing_key) in out and wrong in out
    assert cinder.call()[0] == 0


def test_where_there_is_no_signing_key_the_driver_does_not_start(cinder):
    code, out, _ = cinder.call(efface_sign="true")
    assert code == 1 and "there is no signing key: efface key new /etc/efface/signing-key" in out


def test_the_records_of_all_deletes_are_a_chain(cinder, signing_key):
    options = {"efface_sign": "true", "efface_ledger": "true", "efface_slots": 3}
    volumes = [cinder.create(Volume(), extents=16) for _ in range(3)]
    running = [cinder.start(["delete_volume", each.fields()], **options) for each in volumes]
    assert [process.wait() for process in running] == [0] * 3
    public = ["--public-key", f"{signing_key}.pub"]
    ran = run("efface", "ledger", "verify", "/var/lib/efface/ledger", *public, check=False)
    assert ran.returncode == 0 and "3" in ran.stdout, ran


def test_metrics_are_kept_for_each_volume(cinder):
    volume = cinder.create(Volume(), extents=16)
    assert cinder.delete(volume, efface_metrics="true")[0] == 0
    text = Path(f"/var/lib/efface/metrics/{volume.id}.prom").read_text()
    assert f'device="{volume.node}"' in text and "efface_exit_code" in text


def test_where_the_filters_have_no_metrics_of_jobs_the_driver_does_not_start(cinder):
    before = FILTERS.read_text()
    line = "--metrics=/var/lib/efface/metrics/jobs"
    assert line in before
    FILTERS.write_text(before.replace(line, "--no-metrics"))
    try:
        assert cinder.call()[0] == 0
        code, out, _ = cinder.call(efface_metrics="true")
    finally:
        FILTERS.write_text(before)
    assert code == 1 and "rootwrap did not allow it" in out


def test_where_there_is_no_folder_for_metrics_the_driver_does_not_start(cinder):
    folder = Path("/var/lib/efface/metrics")
    away = folder.rename(f"{folder}.away")
    try:
        assert cinder.call()[0] == 0
        code, out, _ = cinder.call(efface_metrics="true")
    finally:
        away.rename(folder)
    assert code == 1 and f"there is no folder {folder}" in out


@pytest.mark.parametrize("name", ["certificates", "jobs"])
def test_a_missing_folder_stops_the_driver(cinder, name):
    folder = Path("/var/lib/efface", name)
    away = folder.rename(f"{folder}.away")
    try:
        code, out, _ = cinder.call()
    finally:
        away.rename(folder)
    assert code == 1 and f"there is no folder {folder}" in out


FILTERS = Path("/usr/share/cinder/rootwrap/efface.filters")


@pytest.mark.parametrize(
    "file, content, reason",
    [
        (Path("/usr/bin/efface"), None, "rootwrap found no such program: is efface installed"),
        (
            Path("/usr/bin/efface"),
            "#!/bin/sh\necho efface 0.0.9\n",
            "and efface is efface 0.0.9: install one",
        ),
        (FILTERS, None, "rootwrap did not allow it"),
        (FILTERS, ("0\\.1\\.0", "0\\.0\\.9"), "rootwrap did not allow it"),
        (FILTERS, (", jobs", ", no-jobs"), "rootwrap did not allow it"),
    ],
)
def test_what_a_delete_would_lack_stops_the_driver(cinder, file, content, reason):
    away = Path(shutil.copy(file, "/mnt/away"))
    mode = file.stat().st_mode
    try:
        if content is None:
            file.unlink()
        elif isinstance(content, tuple):
            assert content[0] in file.read_text()
            file.write_text(file.read_text().replace(*content))
        else:
            file.unlink()
            file.write_text(content)
            file.chmod(mode)
        code, out, _ = cinder.call()
    finally:
        file.unlink(missing_ok=True)
        shutil.copy(away, file)
        file.chmod(mode)
    assert code == 1 and reason in out, out
    assert cinder.call()[0] == 0


def test_unreadable_records_stop_a_driver_that_accepts_copies(cinder):
    folder = Path("/var/lib/efface/certificates")
    folder.chmod(0o700)
    try:
        assert cinder.call()[0] == 0
        code, out, _ = cinder.call(efface_copies="accept")
    finally:
        folder.chmod(0o750)
    assert code == 1 and f"has to read the records in {folder}" in out


CANNOT_SEE = "efface cannot see all that may use them"


@pytest.mark.parametrize(
    "within, lacks",
    [
        ([], None),
        (["unshare", "--pid", "--fork"], "the host's process namespace"),
        (["setpriv", "--bounding-set=-sys_ptrace"], "CAP_SYS_PTRACE"),
        (["setpriv", "--bounding-set=-dac_read_search"], "CAP_DAC_READ_SEARCH"),
    ],
)
def test_a_service_without_a_view_of_all_processes_warns_at_its_start(cinder, within, lacks):
    code, out, log = cinder.call(within=within)
    assert code == 0, out + log
    assert (CANNOT_SEE in out) == (lacks is not None) and (lacks or "") in out
    assert CANNOT_SEE not in cinder.call(within=within, efface_accept_unseen="true")[1]


@pytest.fixture
def asked(wrapped):
    """What efface is called with."""
    Path("/mnt/asked").unlink(missing_ok=True)
    wrapped("efface", 'echo "$*" >>/mnt/asked\nexec $REAL "$@"')
    return lambda: [line for line in Path("/mnt/asked").read_text().splitlines() if "wipe" in line]


@pytest.mark.parametrize(
    "options, words",
    [
        ({}, " --yield=10%"),
        ({"efface_accept_unseen": "true"}, " --force=unseen --yield=10%"),
        ({"efface_copies": "accept"}, " --force=copies --yield=10%"),
        (
            {"efface_accept_unseen": "true", "efface_copies": "accept"},
            " --force=unseen --force=copies --yield=10%",
        ),
        ({"efface_yield_loss": 5, "efface_yield_min": "32MiB/s"}, " --yield=5% --yield-min=32MiB/s"),
        ({"efface_yield": "false", "efface_yield_min": "32MiB/s"}, ""),
    ],
)
def test_only_what_cinder_knows_and_the_options_accept_is_asked(cinder, asked, options, words):
    volume = cinder.create(Volume(), extents=16)
    code, out, log = cinder.delete(volume, **options)
    assert code == 0, out + log
    [line] = asked()
    assert line.endswith(f" --resume --force=shared-fs{words}")
    assert not volume.exists() and volume.secrets() == 0


WITH_COPIES = """
import json, sys
from pathlib import Path
[file] = Path("/var/lib/efface/certificates").glob("*.json")
record = json.loads(file.read_text())
record |= {"verdict": "residue", "exit_code": 5, "copies": ["dm-7"]}
record["job"]["residue"] = json.loads(sys.argv[1])
file.write_text(json.dumps(record))
sys.exit(5)
"""
BLOCK = [{"start": 0, "end": 4096}]


@pytest.fixture
def cached(wrapped):
    """A volume above a cache: no such layer can be made without device-mapper, so its record is changed."""

    def cache(residue):
        Path("/mnt/with-copies").write_text(WITH_COPIES)
        change = f"python3 /mnt/with-copies '{json.dumps(residue)}'"
        wrapped("efface", f'$REAL "$@" || exit\n[ "$1" != wipe ] || exec {change}')

    return cache


def test_copies_below_a_volume_are_accepted_by_option_and_logged(cinder, cached):
    volume = cinder.create(Volume(), extents=16)
    cached([])
    code, out, log = cinder.delete(volume, efface_copies="accept")
    assert code == 0, out + log
    assert not volume.exists() and volume.secrets() == 0
    assert f"Volume {volume.id} is cleared, but" in out and "may still be on dm-7" in out


@pytest.mark.parametrize("copies, residue", [("refuse", []), ("accept", BLOCK)])
def test_a_volume_with_residue_of_its_own_is_kept(cinder, cached, copies, residue):
    volume = cinder.create(Volume(), extents=16)
    cached(residue)
    code, out, _ = cinder.delete(volume, efface_copies=copies)
    assert code == 1 and volume.exists() and "residue" in out


def test_without_a_record_residue_is_never_accepted(cinder, wrapped):
    volume = cinder.create(Volume(), extents=16)
    wrapped("efface", '[ "$1" != wipe ] || exit 5\nexec $REAL "$@"')
    code, out, _ = cinder.delete(volume, efface_copies="accept")
    assert code == 1 and volume.exists() and "residue" in out and "0 new records" in out
