"""Exit code 5 is accepted only where the record names copies below the volume, and nothing else."""

import json
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from efface_openstack import record
from efface_openstack.record import copies_alone, written_since

COPIES = ["dm-7"]
BLOCK = [{"start": 0, "end": 4096}]


def with_copies(job=None, **fields):
    whole = {
        "verdict": "wiped",
        "error": None,
        "residue": [],
        "residue_unreadable": [],
        "unreadable": [],
        "surviving": {"bytes": 0, "runs": [], "more": False},
    }
    made = {"verdict": "residue", "exit_code": 5, "error": None, "copies": COPIES, "job": whole | (job or {})}
    return {**made, "details": {"job": {"volume_id": "a"}}, **fields}


def test_copies_alone_are_named():
    assert copies_alone(with_copies()) == COPIES


@pytest.mark.parametrize(
    "changed",
    [
        with_copies(copies=[]),
        with_copies(verdict="failed"),
        with_copies(verdict="surviving"),
        with_copies(exit_code=1),
        with_copies(error="it failed"),
        with_copies({"error": "it failed"}),
        with_copies({"verdict": "residue"}),
        with_copies({"verdict": "interrupted"}),
        with_copies({"residue": BLOCK}),
        with_copies({"residue_unreadable": BLOCK}),
        with_copies({"unreadable": BLOCK}),
        with_copies({"surviving": {"bytes": 1, "runs": [], "more": False}}),
        with_copies({"surviving": {"bytes": 0, "runs": [], "more": True}}),
        with_copies({"surviving": {"bytes": 0, "runs": BLOCK, "more": False}}),
    ],
)
def test_any_other_residue_is_not_accepted(changed):
    assert copies_alone(changed) == []


@pytest.mark.parametrize("name", ["verdict", "exit_code", "error", "copies", "job"])
def test_a_missing_field_of_the_record_is_an_error(name):
    record = with_copies()
    del record[name]
    with pytest.raises(KeyError):
        copies_alone(record)
    with pytest.raises(TypeError):
        copies_alone(with_copies() | {"job": None})


@pytest.mark.parametrize("name", with_copies()["job"])
def test_a_missing_field_of_the_job_is_an_error(name):
    record = with_copies()
    del record["job"][name]
    with pytest.raises(KeyError):
        copies_alone(record)


def test_the_record_is_the_only_new_one_of_the_volume(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "CERTIFICATES", str(tmp_path))

    def keep(name, volume):
        details = {"job": {"volume_id": volume}} if volume else {}
        Path(tmp_path, name).write_text(json.dumps({"name": name, "details": details}))

    device = "/dev/mapper/vg-volume--1"
    keep("efface-vg-volume--1-earlier.json", "a")
    keep("efface-vg-volume--2-another.json", "a")
    Path(tmp_path, "efface-vg-volume--1-draft").write_text("no record")
    before = record.names(device)
    assert before == {"efface-vg-volume--1-earlier.json"}
    keep("efface-vg-volume--1-neighbour.json", "b")
    keep("efface-vg-volume--1-by-hand.json", None)
    with pytest.raises(ValueError, match="0 new records"):
        written_since(before, "a", device)
    keep("efface-vg-volume--1-new.json", "a")
    assert written_since(before, "a", device)["name"] == "efface-vg-volume--1-new.json"
    keep("efface-vg-volume--1-another.json", "a")
    with pytest.raises(ValueError, match="2 new records"):
        written_since(before, "a", device)


def test_names_are_cut_as_effaces_are(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "CERTIFICATES", str(tmp_path))
    long = "group+with-a-long-name" * 3 + "-volume"
    kept = f"efface-{long.replace('+', '_')[:64]}-01234567.json"
    Path(tmp_path, kept).write_text("{}")
    assert record.names(f"/dev/mapper/{long}") == {kept}


CLEARED = record.Cleared(
    method="zero",
    verify="standard",
    size_bytes=1 << 30,
    area_bytes=1 << 30,
    marks={"dm_uuid": "LVM-1"},
    boot_id="b",
    since=datetime(2026, 1, 1, 12, tzinfo=timezone.utc),
)


def cleared(job=None, **fields):
    sample = {"strata": 4608, "per_stratum": 1, "block_bytes": 4096, "confidence_ppm": 990_000}
    made = {
        "plan": {"area": {"start": 0, "end": 1 << 30}, "keys": None},
        "verification": {"sample": sample},
    }
    whole = {"verdict": "wiped", "exit_code": 0, "error": None, "method": "zero", "host": {"boot_id": "b"}}
    whole |= {
        "started": "2026-01-01T12:00:00.000000001Z",
        "identity": {"dm_uuid": "LVM-1", "size_bytes": 1 << 30},
    }
    return {**whole, "job": made | (job or {}), **fields}


@pytest.mark.parametrize(
    "of_volume",
    [
        cleared(started="2026-01-01T12:00:00.5Z"),
        cleared(started="2026-01-01T12:00:01Z"),
        cleared({"verification": {"sample": None}}, started="2026-01-02T00:00:00.123456789Z"),
    ],
)
def test_a_record_of_the_same_wipe_since_the_delete_was_requested_fits(of_volume):
    assert CLEARED.fits(of_volume)


LATER = {"started": "2026-01-01T13:00:00Z"}


@pytest.mark.parametrize(
    "other",
    [
        cleared(),
        cleared(started="2026-01-01T11:59:59.999999Z"),
        cleared(**LATER, verdict="residue", exit_code=5),
        cleared(**LATER, error="it failed"),
        cleared(**LATER, method="random"),
        cleared(**LATER, host={"boot_id": "c"}),
        cleared(**LATER, identity={"dm_uuid": "LVM-2", "size_bytes": 1 << 30}),
        cleared(**LATER, identity={"dm_uuid": "LVM-1", "size_bytes": 1 << 29}),
        cleared({"plan": {"area": {"start": 0, "end": 1 << 20}, "keys": None}}, **LATER),
        cleared({"plan": {"area": {"start": 0, "end": 1 << 30}, "keys": {}}}, **LATER),
        cleared({"verification": None}, **LATER),
        cleared({"verification": {"sample": {"strata": 4607, "per_stratum": 1}}}, **LATER),
    ],
)
def test_a_record_of_another_wipe_does_not_fit(other):
    assert not CLEARED.fits(other)


@pytest.mark.parametrize(
    "level, fits", [("none", False), ("standard", True), ("high", False), ("full", False)]
)
def test_the_record_has_to_have_read_what_the_level_asks_for(level, fits):
    assert replace(CLEARED, verify=level).fits(cleared(**LATER)) == fits


@pytest.mark.parametrize("name", [name for name in cleared() if name != "started"])
def test_a_missing_field_of_what_was_cleared_is_an_error(name):
    made = cleared(**LATER)
    del made[name]
    with pytest.raises(KeyError):
        CLEARED.fits(made)
