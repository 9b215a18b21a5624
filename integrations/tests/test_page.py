"""The lines of the OpenStack page that change an operator's files."""

from configparser import ConfigParser

import pytest
from conftest import HERE, INTEGRATIONS, STOCK, run

EFFACE = "efface_openstack.cinder.EffaceLVMDriver"
CEPH = "cinder.volume.drivers.rbd.RBDDriver"
BACKENDS = f"""\
[DEFAULT]
enabled_backends = ceph,lvm,lvm-1
[ceph]
volume_driver = {CEPH}
[lvm]
volume_group = cinder-volumes
volume_driver={STOCK}
[lvm-1]
volume_driver = {STOCK}
"""
LAST = f"[ceph]\nvolume_driver = {CEPH}\n[lvm]\nvolume_driver = {STOCK}\n"
WITHOUT = f"[ceph]\nvolume_driver = {CEPH}\n[lvm-1]\nvolume_driver = {STOCK}\n"


def configured(tmp_path, text):
    """What the page's lines make of a configuration: exit code, and the driver of each section."""
    page = (INTEGRATIONS / "openstack/README.md").read_text()
    steps = page.split("## Cinder: from the packages")[1].split("```\n")[1].splitlines()
    file = tmp_path / "cinder.conf"
    file.write_text(text)
    lines = [line.replace("/etc/cinder/cinder.conf", str(file)) for line in steps if "cinder.conf" in line]
    ran = run("bash", "-euo", "pipefail", "-c", "\n".join(lines), check=False)
    read = ConfigParser()
    read.read(file)
    return ran.returncode, {name: read[name].get("volume_driver") for name in read.sections()}


@pytest.mark.parametrize("text", [BACKENDS, LAST], ids=["among others", "last"])
def test_the_driver_of_the_named_backend_alone_is_changed(tmp_path, text):
    before = ConfigParser()
    before.read_string(text)
    wanted = {name: before[name].get("volume_driver") for name in before.sections()} | {"lvm": EFFACE}
    for _ in range(2):
        assert configured(tmp_path, text) == (0, wanted)
        text = (tmp_path / "cinder.conf").read_text()


def test_where_there_is_no_such_backend_the_lines_fail_and_change_nothing(tmp_path):
    code, drivers = configured(tmp_path, WITHOUT)
    assert code == 1 and drivers == {"ceph": CEPH, "lvm-1": STOCK}


def test_the_releases_on_the_page_are_those_that_the_tests_run_with():
    page = (INTEGRATIONS / "openstack/README.md").read_text()
    rows = [line.split("|") for line in page.split("### Releases")[1].splitlines() if line.startswith("| ")]
    shown = [[cell.strip() for cell in row[1:4]] for row in rows[1:]]
    lines = (HERE / "releases").read_text().splitlines()
    assert shown == [line.split()[:3] for line in lines if not line.startswith("#")]
