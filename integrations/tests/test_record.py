"""Exit code 5 is accepted only where the record names copies below the volume, and nothing else."""

import json
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
