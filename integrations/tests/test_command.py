"""What operators read of an exit code."""

import pytest
from conftest import INTEGRATIONS

from efface_openstack.command import PREFIX, VERSION, meaning


@pytest.mark.parametrize(
    "code, heading",
    [
        (2, "efface did not begin"),
        (3, "it was refused"),
        (96, "rootwrap found no such program"),
        (97, "rootwrap cannot use its configuration"),
        (99, "rootwrap did not allow it"),
        (130, "SIGINT ended it"),
        (137, "SIGKILL ended it"),
        (143, "SIGTERM ended it"),
        # Of a child, as Popen says it.
        (-9, "SIGKILL ended it"),
        (-15, "SIGTERM ended it"),
        (77, "efface ended with 77"),
    ],
)
def test_an_exit_code_has_a_heading_of_its_own(code, heading):
    assert meaning(code, "efface: /dev/x: why\n").startswith(heading)
    assert meaning(code, "efface: /dev/x: why\n").endswith(": /dev/x: why")
    assert meaning(code, "").startswith(heading) and not meaning(code, "").endswith(": ")


@pytest.mark.parametrize("file", ["integrations/openstack/pyproject.toml", "Cargo.toml"])
def test_driver_package_and_program_have_one_version(file):
    assert f'\nversion = "{VERSION}"\n' in (INTEGRATIONS.parent / file).read_text()


def test_driver_and_program_know_what_waits_by_one_name():
    assert f'const PREFIX: &str = "{PREFIX}";\n' in (INTEGRATIONS.parent / "src/device/queued.rs").read_text()
