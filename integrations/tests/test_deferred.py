"""Deletes that end before their volume is cleared: what waits, in which order, and over restarts."""

import os
import signal
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from conftest import (
    GIB,
    GROUP,
    PROJECT,
    Volume,
    certificates,
    job_states,
    jobs,
    logical_volumes,
    processes,
    run,
    wait_for,
    writers,
)

from efface_openstack import deferred

ON = {"efface_deferred_delete": "true"}
SLOW = {**ON, "efface_rate": "64MiB/s", "efface_yield": "false", "efface_verify": "none"}
KEY = {"encryption_key_id": "11111111-2222-3333-4444-555555555555"}


def node(volume):
    """Of a volume that waits."""
    return Path("/dev/mapper", "-".join(word.replace("-", "--") for word in (GROUP, volume.deleted_name)))


@pytest.fixture
def service(cinder):
    """The driver, until the test is done with it; what it logs is in `log`."""
    running = []

    class Service:
        log = Path("/mnt/stays.log")

        def __call__(self, *calls, **options):
            with open(self.log, "a") as log:
                running.append(cinder.start(*calls, ["stay", {}], into=log, **options))
            return running[-1]

        def end(self):
            for process in running:
                process.kill()
                process.wait()
            running.clear()

    service = Service()
    service.log.write_text("")
    yield service
    service.end()


@contextmanager
def held(*volumes):
    """What has these devices open, so that nothing clears them."""
    descriptors = [os.open(volume.node, os.O_RDWR | os.O_EXCL) for volume in volumes]
    try:
        yield
    finally:
        for each in descriptors:
            os.close(each)


def deleted(cinder, *volumes):
    """By a service that ends then."""
    code, out, log = cinder.call(*(["delete_volume", volume.fields()] for volume in volumes), **ON)
    assert code == 0, out + log
    return out


def test_a_delete_ends_before_its_volume_is_cleared_and_a_later_service_clears_it(cinder, service):
    volume, neighbour = cinder.create(Volume(), extents=16), cinder.create(Volume(), extents=16)
    with held(volume):
        renamed = f"{GROUP}/{volume.deleted_name}"
        assert f"Volume {volume.id} is deleted, and waits to be cleared as {renamed}" in deleted(
            cinder, volume
        )
        assert not volume.exists() and volume.waits()
        assert volume.secrets() == 3 and not certificates()
    service(**ON)
    wait_for(lambda: not volume.waits())
    assert volume.secrets() == 0 and neighbour.secrets() == 3
    [record] = certificates()
    job = record["details"]["job"]
    assert (record["verdict"], job["volume_id"], job["tenant"]) == ("wiped", volume.id, PROJECT)
    assert "1 volumes of 0.06 GiB of earlier deletes wait to be cleared" in service.log.read_text()


def test_what_waits_is_cleared_where_the_option_is_not_set_any_more(cinder, service):
    volume = cinder.create(Volume(), extents=16)
    with held(volume):
        deleted(cinder, volume)
    service()
    wait_for(lambda: not volume.waits())
    assert volume.secrets() == 0 and len(certificates()) == 1


def test_volumes_are_cleared_in_the_order_of_their_deletes(cinder, service):
    volumes = [cinder.create(Volume(), extents=16) for _ in range(4)]
    service(*(["delete_volume", volume.fields()] for volume in volumes), **SLOW, efface_slots=1)
    wait_for(lambda: logical_volumes() == [])
    began = sorted(certificates(), key=lambda record: record["started"])
    assert [record["details"]["job"]["volume_id"] for record in began] == [volume.id for volume in volumes]
    assert not any(volume.secrets() for volume in volumes)


def test_as_many_are_cleared_at_once_as_there_are_slots(cinder, service):
    volumes = [cinder.create(Volume(), extents=64) for _ in range(4)]
    # Slow enough for Debian 12's rootwrap to start a second one meanwhile.
    options = {**SLOW, "efface_rate": "24MiB/s", "efface_slots": 2}
    service(*(["delete_volume", volume.fields()] for volume in volumes), **options)
    seen = set()
    wait_for(lambda: seen.add(len(writers())) or logical_volumes() == [])
    assert max(seen) == 2 and not any(volume.secrets() for volume in volumes)
    assert "is left to an efface" not in service.log.read_text(), "none was begun twice"


def test_a_volume_that_is_in_use_is_kept_reported_and_cleared_later(cinder, service):
    volume, other = cinder.create(Volume(), extents=16), cinder.create(Volume(), extents=16)
    with held(volume):
        service(*(["delete_volume", each.fields()] for each in (volume, other)), **ON)
        wait_for(lambda: f"{volume.deleted_name} waits for another attempt" in service.log.read_text())
        wait_for(lambda: not other.waits())
        log = service.log.read_text()
        assert f"Volume {volume.id} is kept: {node(volume)} was not cleared" in log
        assert "volume.delete.error" in log and f'"tenant_id": "{PROJECT}"' in log
        assert volume.waits() and volume.secrets() == 3
    wait_for(lambda: not volume.waits())
    assert volume.secrets() == 0


def test_what_a_killed_service_left_behind_is_not_wiped_again(cinder, service):
    volume = cinder.create(Volume(), extents=256)
    options = {**SLOW, "efface_verify": "standard"}
    first = service(["delete_volume", volume.fields()], **options)
    wait_for(lambda: job_states() == ["running"])
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert job_states() == ["running"] and volume.waits()
    service(**options)
    wait_for(lambda: not volume.waits(), 90)
    assert volume.secrets() == 0 and [record["verdict"] for record in certificates()] == ["wiped"]
    assert f"Volume {volume.id} was cleared by a process that was left behind" in service.log.read_text()


def test_what_waits_is_in_the_groups_statistics_and_a_full_group_is_reported(cinder):
    volume, rest = cinder.create(Volume(), extents=256), Volume()
    run("lvcreate", "-n", rest.name, GROUP, "-l", "100%FREE")
    with held(volume):
        deleted(cinder, volume)
        code, out, log = cinder.call(["stats", {}], ["stats", {}], **ON)
    assert code == 0, out + log
    assert "efface_waiting_volumes: 1, efface_waiting_gb: 1.0" in out
    full = f"Volume group {GROUP} has 0.0 GiB free, and 1 volumes of 1.00 GiB that are deleted wait in it"
    assert out.count(full) == 1, out


def metrics():
    lines = Path("/var/lib/efface/metrics/jobs.prom").read_text().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


def test_what_waits_is_queued_until_a_worker_takes_it(cinder, service):
    volume = cinder.create(Volume(), extents=64)
    with held(volume):
        deleted(cinder, volume)
        assert jobs() == [{"state": "queued", "device": str(node(volume)), "size_bytes": GIB // 4}]
        table = run("efface", "jobs", "--state-dir", "/var/lib/efface/jobs").stdout
        assert table.splitlines()[1].split() == [str(node(volume)), "queued", "256.00", "MiB"]
        code, out, log = cinder.call(["stats", {}], **ON, efface_metrics="true")
        assert code == 0, out + log
        found = metrics()
        assert found['efface_jobs{state="queued"}'] == "1" and found['efface_jobs{state="running"}'] == "0"
        assert found['efface_jobs_bytes{state="queued"}'] == str(GIB // 4)
        # What the two services left behind gives up.
        wait_for(lambda: not processes("efface"))
    service(**SLOW)
    wait_for(lambda: job_states() == ["running"])
    wait_for(lambda: not volume.waits())
    assert job_states() == ["ended"]


def test_metrics_that_cannot_be_written_are_reported_and_cost_no_statistics(cinder, wrapped):
    once = Path("/mnt/once")
    once.unlink(missing_ok=True)
    fails = f'case "$*" in *jobs.prom) [ ! -e {once} ] || exit 1; touch {once} ;; esac'
    wrapped("efface", f'{fails}\nexec $REAL "$@"')
    code, out, log = cinder.call(["stats", {}], efface_metrics="true")
    assert code == 0 and "efface_waiting_volumes: 0" in out, out + log
    assert "The metrics do not say what waits to be cleared: it failed" in out


def test_where_it_is_not_known_what_waits_the_driver_says_so(cinder, lvs):
    blind = Path("/mnt/blind")
    blind.unlink(missing_ok=True)
    lvs(f'case "$*" in *lv_tags*) [ ! -e {blind} ] || exit 5; touch {blind} ;; esac')
    code, out, log = cinder.call(["stats", {}], **ON)
    assert code == 0 and "efface_waiting_volumes: unknown, efface_waiting_gb: unknown" in out, out + log
    assert f"Which volumes of {GROUP} wait to be cleared cannot be read" in out
    code, out, log = cinder.call(**ON)
    assert code == 1 and f"which volumes of {GROUP} wait to be cleared cannot be read" in out, out + log


@pytest.mark.parametrize(
    "fields, options",
    [
        # A server may have it: then it is refused at once, and not when its tenant knows of no volume.
        ({"attach_status": "attaching"}, {}),
        ({"thin": True}, {}),
        (KEY, {"efface_encrypted": "destroy_key"}),
        ({}, {"efface_deferred_delete": "false"}),
    ],
)
def test_what_is_cleared_before_its_delete_ends(cinder, database, fields, options):
    volume = cinder.create(Volume(), extents=16)
    if fields.get("thin"):
        options = {"efface_thin": "none"}
    code, out, log = cinder.delete(volume, fields, **{**ON, **options})
    assert code == 0, out + log
    assert not volume.exists() and not volume.waits()
    assert volume.secrets() == (3 if fields.get("thin") else 0)


NOW = {**SLOW, "efface_deferred_delete": "false"}


@pytest.mark.parametrize(
    "options, fields, later",
    [
        ({"efface_delete_workers": 1}, {}, 2),
        ({"efface_delete_workers": 2}, {}, 1),
        ({"efface_delete_workers": 1}, {"attach_status": "attaching"}, 0),
        ({}, {}, 0),
    ],
)
def test_beyond_as_many_deletes_as_may_occupy_workers_volumes_are_cleared_later(
    cinder, service, options, fields, later
):
    volumes = [cinder.create(Volume(), extents=64) for _ in range(3)]
    last = cinder.create(Volume(), extents=16)
    at_once = ["at_once", [volume.fields(**fields) for volume in volumes]]
    # The last one is deleted when those at once have ended.
    service(at_once, ["delete_volume", last.fields()], **NOW, **options)
    wait_for(lambda: logical_volumes() == [])
    log = service.log.read_text()
    assert [f"Volume {volume.id} is deleted, and waits" in log for volume in (*volumes, last)] == [
        *[False] * (3 - later),
        *[True] * later,
        False,
    ]
    assert len(certificates()) == 4 and not any(volume.secrets() for volume in (*volumes, last))


def test_a_volume_that_an_efface_was_left_behind_on_is_waited_for_and_not_renamed(cinder, service):
    left, other = cinder.create(Volume(), extents=256), cinder.create(Volume(), extents=128)
    first = service(["delete_volume", left.fields()], **NOW)
    wait_for(lambda: job_states() == ["running"])
    [wiper] = writers()
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert job_states() == ["running"]
    # It does not end before the next service has looked.
    os.kill(wiper, signal.SIGSTOP)
    service(["at_once", [other.fields(), left.fields()]], **NOW, efface_delete_workers=1)
    wait_for(lambda: f"{left.node} is left to an efface" in service.log.read_text())
    os.kill(wiper, signal.SIGCONT)
    wait_for(lambda: logical_volumes() == [])
    assert "waits to be cleared as" not in service.log.read_text()
    assert not left.secrets() and not other.secrets()


def test_with_volume_clear_none_nothing_waits(cinder):
    volume = cinder.create(Volume(), extents=16)
    assert cinder.delete(volume, volume_clear="none", **ON)[0] == 0
    assert not volume.exists() and not volume.waits() and volume.secrets() == 3


def test_the_key_is_destroyed_before_the_delete_ends(cinder, service):
    volume = cinder.create(Volume(), extents=16)
    run(
        *("cryptsetup", "luksFormat", "--batch-mode", "--type=luks1"),
        *("--pbkdf-force-iterations=1000", "--key-file=-", volume.node),
        input="0123456789abcdef",
    )
    volume.encrypt()
    options = {**ON, "efface_encrypted": "destroy_key_then_zero"}
    code, out, log = cinder.delete(volume, KEY, **options)
    assert code == 0, out + log
    assert [record["method"] for record in certificates()][:1] == ["destroy-key"]
    service(**options)
    wait_for(lambda: not volume.waits())
    assert sorted(record["method"] for record in certificates()) == ["destroy-key", "zero"]
    assert volume.secrets() == 0


def test_a_thin_volume_waits_and_is_cleared_as_its_pool_is(cinder, service):
    volume = cinder.create(Volume(), extents=16)
    service(["delete_volume", volume.fields(thin=True)], **ON)
    wait_for(lambda: logical_volumes() == [])
    [record] = certificates()
    assert record["verdict"] == "wiped" and volume.secrets() == 0
    log = service.log.read_text()
    assert "waits to be cleared as" in log and "thin pool" in log


def test_what_waits_is_cleared_although_thin_volumes_are_not_any_more(cinder):
    volume = cinder.create(Volume(), extents=16)
    code, out, log = cinder.call(["_clear_thin", volume.fields(thin=True)], efface_thin="none")
    assert code == 0, out + log
    assert volume.secrets() == 0 and [record["verdict"] for record in certificates()] == ["wiped"]


def test_a_snapshot_is_split_off_and_waits(cinder, service):
    snapshot = cinder.create(Volume(template="_snapshot-%s"), extents=16)
    fields = {"id": snapshot.id, "project_id": PROJECT, "volume_size": 1, "volume_id": snapshot.id}
    service(["delete_snapshot", fields], **ON)
    wait_for(lambda: logical_volumes() == [])
    assert snapshot.secrets() == 0 and "waits to be cleared as" in service.log.read_text()
    commands = Path("/run/lvm-without-device-mapper").read_text().splitlines()
    split, renamed = (
        next(index for index, line in enumerate(commands) if line.startswith(word) and snapshot.name in line)
        for word in ("lvconvert --splitsnapshot", "lvrename")
    )
    assert split < renamed


def test_a_volume_that_cannot_be_renamed_is_kept(cinder):
    volume = cinder.create(Volume(), extents=16)
    run("lvcreate", "-n", volume.deleted_name, GROUP, "-l", 1)
    code, out, _ = cinder.delete(volume, **ON)
    assert code == 1 and volume.exists() and volume.secrets() == 3
    assert f"Volume {volume.id} is kept: {GROUP}/{volume.name} was not renamed" in out


def test_what_waits_cannot_be_managed(cinder):
    volume = cinder.create(Volume(), extents=16)
    with held(volume):
        deleted(cinder, volume)
        code, out, _ = cinder.call(["manage", {"source-name": volume.deleted_name}], **ON)
    assert code == 1 and "waits to be cleared of what its tenant wrote" in out


def line(name, since, tags="efface.volume=a,efface.project=b"):
    return f"  {name}|4194304|{tags},efface.since={since},of.another=x"


def test_only_what_the_driver_renamed_is_listed_the_oldest_first():
    report = "\n".join(
        [
            line("efface-deleted-2", "1700000002.5"),
            line("efface-deleted-1", "1700000001.25"),
            line("efface-deleted-3", "1700000003"),
            line("volume-4", "1700000000"),
            "  efface-deleted-by-hand|4194304|",
            "  root|4194304|of.another=x",
        ]
    )
    first, *others = deferred.parse(report)
    assert [each.name for each in (first, *others)] == [f"efface-deleted-{number}" for number in (1, 2, 3)]
    assert (first["id"], first["project_id"], first.size_bytes) == ("a", "b", 4194304)
    since = datetime(2023, 11, 14, 22, 13, 21, tzinfo=timezone.utc) + timedelta(milliseconds=250)
    assert first["terminated_at"] == since


@pytest.mark.parametrize("broken", ["efface-deleted-1|4194304|efface.volume=a", "efface-deleted-1|x"])
def test_a_line_that_is_not_understood_is_an_error(broken):
    with pytest.raises((ValueError, KeyError)):
        deferred.parse(broken)
