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


@pytest.fixture
def deb():
    deb = Path(os.environ["EFFACE_DEB"])
    if not deb.exists():
        pytest.skip("no Debian package was built: scripts/package deb")
    return deb


def test_it_is_installed_removed_and_purged_and_certificates_stay(deb):
    quiet = {"env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}}
    run("apt-get", "install", "--yes", "--allow-downgrades", "--reinstall", deb, **quiet)
    assert [file for file in FILES if not Path(file).exists()] == []
    assert run("/usr/bin/efface", "--version").stdout.startswith("efface 0.1.0")
    owners = [Path("/var/lib/efface", folder).stat() for folder in ("", "certificates", "jobs")]
    assert [(each.st_uid, each.st_mode & 0o777) for each in owners] == [(0, 0o711), (0, 0o755), (0, 0o700)]
    kept = Path("/var/lib/efface/certificates/kept.json")
    kept.write_text("{}")
    run("apt-get", "remove", "--yes", "efface", **quiet)
    assert [file for file in FILES if Path(file).exists()] == []
    run("dpkg", "--purge", "efface", **quiet)
    assert kept.exists() and not Path("/var/lib/efface/jobs").exists()
    kept.unlink()


def test_the_manual_can_be_read(deb):
    pages = run("dpkg-deb", "--fsys-tarfile", deb, text=False).stdout
    wipe = run("tar", "-xO", "./usr/share/man/man1/efface-wipe.1.gz", input=pages, text=False).stdout
    text = run("gzip", "-dc", input=wipe, text=False).stdout.decode()
    assert ".TH" in text and "Exit codes" in text
