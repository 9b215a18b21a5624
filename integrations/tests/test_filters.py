"""What rootwrap lets the service run as root: the driver's command lines, and no others."""

import argparse
import json
import subprocess
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from conftest import AS_CINDER, ENVIRONMENT, HERE, INTEGRATIONS, run

from efface_openstack import filters
from efface_openstack.command import (
    CERTIFICATES,
    JOBS,
    METRICS,
    DestroyKey,
    Wipe,
    jobs,
    rename,
    split_snapshot,
    verify,
    version,
)

VOLUME = "0a1b2c3d-1111-2222-3333-444455556666"
MAPPED = VOLUME.replace("-", "--")
ORDER = {
    "device": f"/dev/mapper/cinder--volumes-volume--{MAPPED}",
    "volume_id": VOLUME,
    "tenant": "0123456789abcdef0123456789abcdef",
    "ionice": "best-effort:4",
    "wait": "60",
}
WIPE = Wipe(**ORDER, method="zero", verify="standard", slots="2")
DISCARD = replace(WIPE, method="discard")
KEY = DestroyKey(**ORDER, external_key=VOLUME)


def answers(commands):
    words = ["/srv/cinder/bin/python", HERE / "rootwrap_answers.py"]
    return json.loads(run(*words, input=json.dumps(commands)).stdout)


def test_the_file_is_made_from_the_command_lines():
    file = INTEGRATIONS / "openstack/rootwrap.d/efface.filters"
    assert file.read_text() == filters.text(), (
        "python3 -m efface_openstack.filters > rootwrap.d/efface.filters"
    )


OTHERS = filters.Names("/opt/efface.d/bin/efface", "v.%s-of+a-tenant", "snap-%s")


@pytest.fixture
def other_names(machine):
    """The filters that the page says for other templates and another program."""
    file = Path("/usr/share/cinder/rootwrap/efface.filters")
    packaged = file.read_text()
    words = ["--volume-name-template", OTHERS.volume_name_template, "--binary", OTHERS.binary]
    words += ["--snapshot-name-template", OTHERS.snapshot_name_template]
    made = run("/srv/cinder/bin/python", "-m", "efface_openstack.filters", *words).stdout
    assert made == filters.text(OTHERS)
    file.write_text(made)
    # rootwrap looks whether it is there.
    Path(OTHERS.binary).parent.mkdir(parents=True)
    Path(OTHERS.binary).symlink_to("/usr/bin/efface")
    yield
    file.write_text(packaged)


def test_other_names_pass_where_the_filters_are_made_for_them(other_names):
    volume, snapshot = (template % VOLUME for template in ("v.%s-of+a-tenant", "snap-%s"))
    devices = [f"/dev/mapper/vg-{name.replace('-', '--')}" for name in (volume, snapshot)]
    program = OTHERS.binary
    mine = [replace(order, binary=program, device=device) for order in (WIPE, KEY) for device in devices]
    commands = [order.words() for order in mine] + [jobs(program), version(program)]
    commands += [split_snapshot("vg", snapshot), rename("vg", volume, f"efface-deleted-{VOLUME}")]
    commands += [verify(program, devices[0], "idle", "efface-a.json")]
    assert answers(commands) == [True] * len(commands)
    others = [changed(commands[0], devices[0], devices[0].replace("v.", "vx"))]
    others += [WIPE.words(), jobs("efface"), [program.replace("efface.d", "efface_d"), *commands[0][1:]]]
    assert answers(others) == [False] * len(others)


@pytest.mark.parametrize("template", ["volume", "%s-%s", "a,b-%s", "../%s", "(a|b)%s", "-f%s", "a b%s"])
def test_a_template_that_would_be_a_pattern_is_refused(template):
    with pytest.raises(argparse.ArgumentTypeError):
        filters.name_template(template)


def test_every_command_of_the_driver_passes(machine):
    paces = [{"yields": None}, {"yields": "5%"}, {"yields": None, "rate": "200MiB/s"}]
    paces += [{"yield_min": lowest} for lowest in ("0", "16MiB/s")]
    extents = [{}, {"size": "64MiB"}, {"size": "1024MiB"}, {"metrics": True}]
    extents += [{"skip_zeroes": True}, {"offload": True}, {"skip_zeroes": True, "size": "64MiB"}]
    kinds = ("shared_fs", "unseen", "copies")
    forces = [dict(zip(kinds, forced, strict=True)) for forced in product((False, True), repeat=3)]
    forces += [{"sign": True}, {"sign": True, "ledger": True}, {"ledger": True, "shared_fs": True}]
    wipes = [
        replace(WIPE, **pace, **extent, **force) for pace, extent, force in product(paces, extents, forces)
    ]
    wipes += [replace(DISCARD, **pace, **force) for pace, force in product(paces, forces)]
    names = ("vg.1-_snapshot", "a--b-volume", "v_g+-volume", "vg-efface--deleted")
    devices = [f"/dev/mapper/{name}--{MAPPED}" for name in names]
    wipes += [replace(WIPE, device=device) for device in devices]
    wipes += [replace(WIPE, method=method, verify="none") for method in ("shred", "random")]
    wipes += [replace(WIPE, ionice="idle", wait="300", slots="99", tenant="a_project")]
    wipes += [replace(KEY, **force) for force in forces]
    commands = [wipe.words() for wipe in wipes]
    name = f"efface-vg-volume--{MAPPED}-0123abcd.json"
    commands += [verify("efface", ORDER["device"], "idle", name)]
    commands += [version("efface"), jobs("efface"), jobs("efface", metrics=True)]
    commands += [split_snapshot("vg.1", f"_snapshot-{VOLUME}")]
    commands += [
        rename("vg.1", f"{kind}-{VOLUME}", f"efface-deleted-{VOLUME}") for kind in ("volume", "_snapshot")
    ]
    refused = [words for words, passes in zip(commands, answers(commands), strict=True) if not passes]
    assert not refused


def changed(words, old, new):
    """The same command line with one word changed."""
    assert words.count(old) == 1
    return [new if word == old else word for word in words]


def other_devices():
    yield from ("/dev/sda", "/dev/mapper/../sda", "serial:ZC18XYZ9", "wwn:0x5000c500a1b2c3d4", "--image", "")
    yield "/dev/mapper/cinder--volumes-root"
    yield ORDER["device"] + "/../../sda"
    yield ORDER["device"] + "-cow"
    yield ORDER["device"] + " /dev/sda"
    yield f"/dev/mapper/a/../../sda-volume--{MAPPED}"
    # An option, a hidden name, and a volume `x-volume-…`: device-mapper doubles the hyphens of a name.
    yield f"/dev/mapper/--vg-volume--{MAPPED}"
    yield f"/dev/mapper/.vg-volume--{MAPPED}"
    yield f"/dev/mapper/vg-x--volume--{MAPPED}"


def other_values():
    yield {"method": "gutmann"}
    yield {"method": "zero --force shared-fs"}
    yield {"verify": "nist-r1"}
    yield {"method": "discard", "verify": "none"}
    for ionice in ("realtime:9", "realtime:0", "best-effort:8"):
        yield {"ionice": ionice}
    for wait in ("-1", "0", "10000", "9" * 40):
        yield {"wait": wait}
    for rate in ("0", "0MiB/s", "99999MiB/s", "200MB/s"):
        yield {"rate": rate}
    for loss in ("", "100%", "5", "-1%"):
        yield {"yields": loss}
    for lowest in ("", "-1", "16MB/s", "99999MiB/s"):
        yield {"yield_min": lowest}
    for size in ("-1", "0", "1", "0MiB", "67108864", "99999MiB"):
        yield {"size": size}
    for slots in ("all", "0", "100", "65535"):
        yield {"slots": slots}
    yield {"volume_id": "x\njob.tenant=y"}
    for tenant in ("../..", "a b", "", "a" * 256):
        yield {"tenant": tenant}


def other_folders():
    """Certificates and jobs have one folder each."""
    for folder in (
        "/etc/cron.d",
        "/root",
        "/var/lib/efface",
        "/var/lib/efface/../../../etc",
        "/var/lib/efface/c.json",
        "/var/lib/efface/certificates/../other",
        "/var/lib/efface/new",
        "/var/lib/efface/ledger/head",
        "/var/lib/efface/certificates/",
    ):
        yield changed(WIPE.words(), CERTIFICATES, folder)
        yield changed(WIPE.words(), JOBS, folder)
        yield changed(KEY.words(), CERTIFICATES, folder)
        yield changed(jobs("efface"), JOBS, folder)
    yield changed(WIPE.words(), CERTIFICATES, JOBS)
    yield changed(WIPE.words(), JOBS, CERTIFICATES)


def forces():
    """Three kinds pass; no other does, and none in another form."""
    words = WIPE.words()
    for kind in ("snapshot-cow", "unprobed", "same-serial", "unseen ", "all", ""):
        yield [*words, f"--force={kind}"]
        yield [*words[:3], f"--force={kind}", *words[3:]]
        yield [*words, "--force=unseen", f"--force={kind}"]
        yield [*KEY.words(), f"--force={kind}"]
    for words in (WIPE.words(), DISCARD.words(), KEY.words()):
        yield [*words, "--force", "unseen"]
        yield [*words[:3], "--force=unseen", *words[3:]]
        yield [*words, "--force=unseen,copies"]
        yield [*words, "--force"]


def other_evidence():
    for option in ("--sign-key", "--ledger", "--metrics"):
        for file in ("/etc/shadow", "/etc/ssh/ssh_host_ed25519_key", "/var/lib/efface/new", ""):
            yield [*WIPE.words(), f"{option}={file}"]
    yield [*WIPE.words(), f"--metrics=/var/lib/efface/metrics/{VOLUME}xprom"]
    yield [*WIPE.words(), f"--metrics=/var/lib/efface/metrics/../{VOLUME}.prom"]
    yield [*KEY.words(), f"--metrics=/var/lib/efface/metrics/{VOLUME}.prom"]
    yield [*KEY.words(), "--ledger=/root"]
    for name in (f"{VOLUME}.prom", "jobsxprom", "../jobs.prom", "../../../../etc/shadow"):
        yield [*jobs("efface"), f"--metrics={METRICS}/{name}"]
    yield [*WIPE.words(), "--metrics=/var/lib/efface/metrics/jobs.prom"]


def of_other_commands():
    """What another command of the driver's may have."""
    for option in ("--size=64MiB", "--skip-zeroes", "--zero-with=offload"):
        yield [*DISCARD.words(), option]
        yield [*KEY.words(), option]
    for option in ("--yield=10%", "--rate=1MiB/s"):
        yield [*KEY.words(), option]
        yield [*jobs("efface"), option]
    yield [*WIPE.words(), "--external-key", VOLUME]


def other_checks():
    check = verify("efface", ORDER["device"], "idle", "efface-a.json")
    [place] = [index for index, word in enumerate(check) if word.endswith("efface-a.json")]
    for file in ("/etc/shadow", f"{CERTIFICATES}/../jobs/efface-a.json", f"{CERTIFICATES}/a.json", "-"):
        yield [*check[:place], file, *check[place + 1 :]]
    yield [word.replace(ORDER["device"], "/dev/sda") for word in check]
    yield [*check, "--certificate-to=/root"]
    yield [*check, "--image"]


def with_newlines():
    """`$` matches before a newline at the end; no word of any line may have one."""
    split = split_snapshot("vg", f"_snapshot-{VOLUME}")
    renamed = rename("vg", f"volume-{VOLUME}", f"efface-deleted-{VOLUME}")
    paced = replace(
        WIPE,
        rate="1MiB/s",
        size="64MiB",
        shared_fs=True,
        unseen=True,
        copies=True,
        sign=True,
        ledger=True,
        metrics=True,
    )
    listed = jobs("efface", metrics=True)
    for words in (paced.words(), DISCARD.words(), KEY.words(), jobs("efface"), listed, split, renamed):
        for place, word in enumerate(words[1:], 1):
            yield [*words[:place], word + "\n", *words[place + 1 :]]


def attempts():
    words = WIPE.words()
    for device in other_devices():
        yield replace(WIPE, device=device).words()
        yield replace(KEY, device=device).words()
    for values in other_values():
        yield replace(WIPE, **values).words()
    for secret in ("-x", "--image", "a b", "", "a" * 256):
        yield replace(KEY, external_key=secret).words()
    yield from other_folders()
    yield from forces()
    yield from of_other_commands()
    yield from other_checks()
    yield from other_evidence()
    yield from with_newlines()
    for more in (["--image"], ["--sign-key", "/etc/shadow"], ["/dev/sda"]):
        yield words + more
        yield words[:3] + more + words[3:]
    yield words[:2]
    yield words[:3]
    yield changed(words, f"job.volume_id={VOLUME}", f"jobXvolume_id={VOLUME}")
    yield ["efface", "wipe", "/dev/sda", "--yes"]
    yield ["efface", "list"]
    yield ["efface", "--version"]
    yield ["efface", "--version", "0.1.1"]
    yield ["efface", "--version", "0a1b0"]
    yield [*version("efface"), "wipe"]
    yield ["env", "LD_PRELOAD=/tmp/x.so", *version("efface")]
    yield ["efface", "wipe", "--plan", "/tmp/plan.json", "--yes"]
    yield ["efface", "certificate", "render", "/etc/shadow"]
    yield ["/usr/bin/efface", *words[1:]]
    yield ["ionice", "-c3", *words]
    yield ["sh", "-c", " ".join(words)]
    yield [*KEY.words(), "--header", "/dev/sda"]
    yield [*jobs("efface"), "--clear"]
    yield split_snapshot("vg", "root")
    yield split_snapshot("vg", f"volume-{VOLUME}")
    for group in ("-f", "--force", ".", ""):
        yield split_snapshot(group, f"_snapshot-{VOLUME}")
    yield [*split_snapshot("vg", f"_snapshot-{VOLUME}"), "--config", "global {}"]
    volume, deleted = f"volume-{VOLUME}", f"efface-deleted-{VOLUME}"
    # Back again it would be a volume that holds another tenant's bytes.
    for old, new in ((deleted, volume), ("root", deleted), (volume, "root"), (volume, f"_snapshot-{VOLUME}")):
        yield rename("vg", old, new)
    yield rename("--config", volume, deleted)
    yield [*rename("vg", volume, deleted), "--config", "global {}"]


def test_no_other_command_passes(machine):
    commands = list(attempts())
    passed = [words for words, passes in zip(commands, answers(commands), strict=True) if passes]
    assert not passed


@pytest.mark.parametrize(
    "more",
    [
        ["--yield=10%", "--yield=10%"],
        ["--skip-zeroes", "--zero-with=offload"],
        ["--size=1MiB", "--size=2MiB"],
    ],
)
def test_what_passes_and_excludes_each_other_is_refused_by_efface(machine, more):
    plain = replace(WIPE, yields=None).words()
    assert answers([[*plain, *more]]) == [True]
    refused = run(*plain, *more, check=False)
    assert refused.returncode == 2 and "cannot be used" in refused.stderr, refused


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
