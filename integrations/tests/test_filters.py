"""What rootwrap lets the service have root do: our command lines, and nothing that only looks like them."""

import json
import subprocess
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from conftest import AS_CINDER, ENVIRONMENT, HERE, INTEGRATIONS, run

from efface_openstack import filters
from efface_openstack.command import DestroyKey, Wipe, jobs, split_snapshot

VOLUME = "0a1b2c3d-1111-2222-3333-444455556666"
ORDER = {
    "device": f"/dev/mapper/cinder--volumes-volume--{VOLUME.replace('-', '--')}",
    "volume_id": VOLUME,
    "tenant": "0123456789abcdef0123456789abcdef",
    "ionice": "best-effort:4",
    "wait": "60",
    "certificate_dir": "/var/lib/efface/certificates",
}
WIPE = Wipe(**ORDER, method="zero", verify="standard", slots="2", state_dir="/var/lib/efface/jobs")
KEY = DestroyKey(**ORDER, external_key=VOLUME)


def answers(commands):
    words = ["/srv/cinder/bin/python", HERE / "rootwrap_answers.py"]
    return json.loads(run(*words, input=json.dumps(commands)).stdout)


def test_the_file_is_made_from_the_command_lines():
    file = INTEGRATIONS / "openstack/rootwrap.d/efface.filters"
    assert file.read_text() == filters.text(), (
        "python3 -m efface_openstack.filters > rootwrap.d/efface.filters"
    )


def test_all_that_the_driver_says_passes(machine):
    wipes = [
        replace(WIPE, yields=yields, rate=rate, size=size, prefer_key=prefer_key)
        for yields, rate, (size, prefer_key) in product(
            (True, False), (None, "200MiB/s"), ((None, False), ("67108864", False), (None, True))
        )
    ]
    snapshot = ORDER["device"].replace("-volume-", "-_snapshot-")
    wipes += [replace(WIPE, method=method) for method in ("shred", "random", "discard")]
    wipes += [replace(WIPE, device=snapshot), replace(WIPE, ionice="idle"), KEY]
    commands = [wipe.words() for wipe in wipes]
    commands += [jobs("efface", "/var/lib/efface/jobs"), split_snapshot("vg.1", f"_snapshot-{VOLUME}")]
    assert all(answers(commands))


def attempts():
    words = WIPE.words()
    for device in (
        "/dev/sda",
        "/dev/mapper/cinder--volumes-root",
        "/dev/mapper/../sda",
        ORDER["device"] + "/../../sda",
        ORDER["device"] + "-cow",
        "/dev/mapper/a/../../sda-volume--" + VOLUME.replace("-", "--"),
        ORDER["device"] + " /dev/sda",
        "serial:ZC18XYZ9",
        "wwn:0x5000c500a1b2c3d4",
        "--image",
        "",
    ):
        yield replace(WIPE, device=device).words()
    for other in (
        {"method": "gutmann"},
        {"method": "zero --force shared-fs"},
        {"verify": "nist-r1"},
        {"ionice": "realtime:9"},
        {"wait": "-1"},
        {"certificate_dir": "/etc/cron.d"},
        {"certificate_dir": "/var/lib/efface/../../../etc"},
        {"certificate_dir": "/var/lib/efface/c.json"},
        {"state_dir": "/root"},
        {"state_dir": "/var/lib/efface/../other"},
        {"rate": "0"},
        {"size": "-1"},
        {"slots": "all"},
        {"volume_id": "x\njob.tenant=y"},
        {"tenant": "../.."},
        {"tenant": "a b"},
    ):
        yield replace(WIPE, **other).words()
    for more in (["--force", "shared-fs"], ["--image"], ["--sign-key", "/etc/shadow"], ["/dev/sda"]):
        yield words + more
        yield words[:3] + more + words[3:]
    yield words[:2]
    yield words[:3]
    yield ["efface", "wipe", "/dev/sda", "--yes"]
    yield ["efface", "list"]
    yield ["efface", "wipe", "--plan", "/tmp/plan.json", "--yes"]
    yield ["efface", "certificate", "render", "/etc/shadow"]
    yield ["/usr/bin/efface", *words[1:]]
    yield ["ionice", "-c3", *words]
    yield ["sh", "-c", " ".join(words)]
    yield [*KEY.words(), "--header", "/dev/sda"]
    yield [*jobs("efface", "/var/lib/efface/jobs"), "--clear"]
    yield split_snapshot("vg", "root")
    yield split_snapshot("vg", f"volume-{VOLUME}")
    yield [*split_snapshot("vg", f"_snapshot-{VOLUME}"), "--config", "global {}"]


def test_nothing_else_passes(machine):
    commands = list(attempts())
    passed = [words for words, passes in zip(commands, answers(commands), strict=True) if passes]
    assert not passed


@pytest.mark.parametrize("words", [["efface", "list"], ["efface", "wipe", "/dev/loop200", "--yes"]])
def test_the_real_rootwrap_refuses_too(machine, words):
    sudo = ["sudo", "-n", "cinder-rootwrap", "/etc/cinder/rootwrap.conf"]
    refused = run(*AS_CINDER, *sudo, *words, check=False, env=ENVIRONMENT, cwd="/mnt")
    assert refused.returncode == 99 and "Unauthorized command" in refused.stderr, refused


def test_the_service_cannot_write_where_the_records_lie(machine):
    for folder in ("certificates", "jobs"):
        file = Path("/var/lib/efface", folder, "forged")
        touched = subprocess.run([*AS_CINDER, "touch", file], capture_output=True)
        assert touched.returncode == 1 and not file.exists()
