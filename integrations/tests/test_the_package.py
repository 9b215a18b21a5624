"""The Debian package, installed and removed; the system below stays as it is."""

import os
from pathlib import Path

import pytest
from conftest import run

FILES = [
    "/usr/bin/efface",
    "/usr/share/man/man1/efface.1.gz",
    "/usr/share/man/man1/efface-wipe.1.gz",
    "/usr/share/bash-completion/completions/efface",
    "/usr/share/zsh/vendor-completions/_efface",
    "/usr/share/cinder/rootwrap/efface.filters",
    "/usr/lib/systemd/system/efface@.service",
    "/usr/share/doc/efface/README.md",
]


def kept():
    """Group and mode of what belongs to root below /var/lib/efface."""
    top = Path("/var/lib/efface")
    # What the machine itself has there can be seen, too.
    folders = [top, *(each for each in top.iterdir() if each.is_dir())]
    assert {folder.owner() for folder in folders} == {"root"}
    return {
        str(folder.relative_to(top)): (folder.group(), folder.stat().st_mode & 0o777) for folder in folders
    }


@pytest.fixture
def no_cinder():
    """No group of cinder's; gives what adds it, as its package does."""
    file = Path("/etc/group")
    before = file.read_text()
    file.write_text("".join(line for line in before.splitlines(True) if not line.startswith("cinder:")))
    yield lambda: run("groupadd", "cinder")
    file.write_text(before)


def test_it_is_installed_removed_and_purged_and_certificates_stay(deb, no_cinder):
    quiet = {"env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}}
    run("apt-get", "install", "--yes", "--allow-downgrades", "--reinstall", deb, **quiet)
    assert [file for file in FILES if not Path(file).exists()] == []
    assert run("/usr/bin/efface", "--version").stdout.startswith("efface 0.1.0")
    assert kept() == {
        ".": ("root", 0o711),
        "certificates": ("root", 0o750),
        "jobs": ("root", 0o700),
        "ledger": ("root", 0o700),
        "metrics": ("root", 0o755),
    }
    no_cinder()
    run("dpkg-reconfigure", "efface", **quiet)
    assert kept()["certificates"] == ("cinder", 0o750)
    in_ledger = Path("/var/lib/efface/ledger/head")
    in_ledger.write_text("{}")
    certificate = Path("/var/lib/efface/certificates/kept.json")
    certificate.write_text("{}")
    run("apt-get", "remove", "--yes", "efface", **quiet)
    assert [file for file in FILES if Path(file).exists()] == []
    run("dpkg", "--purge", "efface", **quiet)
    assert certificate.exists() and in_ledger.exists()
    assert not Path("/var/lib/efface/jobs").exists() and not Path("/var/lib/efface/metrics").exists()
    certificate.unlink()
    in_ledger.unlink()


def test_the_manual_can_be_read(deb):
    pages = run("dpkg-deb", "--fsys-tarfile", deb, text=False).stdout
    wipe = run("tar", "-xO", "./usr/share/man/man1/efface-wipe.1.gz", input=pages, text=False).stdout
    text = run("gzip", "-dc", input=wipe, text=False).stdout.decode()
    assert ".TH" in text and "Exit codes" in text
