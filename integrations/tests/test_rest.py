"""All of cinder: its API, scheduler and volume service over RabbitMQ, as tenants and operators see it."""

import os
import subprocess
from pathlib import Path

import pytest
import requests
from conftest import (
    API_PORT,
    AS_CINDER,
    ENVIRONMENT,
    PROJECT,
    RABBIT_PORT,
    Volume,
    certificates,
    run,
    wait_for,
)

URL = f"http://127.0.0.1:{API_PORT}/v3/{PROJECT}"


def call(method, path, body=None, timeout=60):
    headers = {"X-Auth-Token": f"admin:{PROJECT}"}
    return requests.request(method, URL + path, json=body, headers=headers, timeout=timeout)


@pytest.fixture(scope="module")
def rabbit():
    home = Path("/mnt/rabbit")
    home.mkdir()
    environment = {
        "PATH": "/usr/sbin:/usr/bin",
        "HOME": str(home),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": "29369",
        "RABBITMQ_NODENAME": "efface@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(RABBIT_PORT),
        "RABBITMQ_DIST_PORT": "29673",
        "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
        "RABBITMQ_LOG_BASE": str(home / "log"),
        "RABBITMQ_PID_FILE": str(home / "pid"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
    }
    words = ["/usr/lib/rabbitmq/bin/rabbitmq-server"]
    with open(home / "log.txt", "w") as log:
        server = subprocess.Popen(words, env=environment, stdout=log, stderr=log)

    def listens():
        assert server.poll() is None, (home / "log.txt").read_text()
        # The broker greets nobody: it answers a wrong protocol header with its own.
        asked = run(
            "/usr/bin/timeout", "1", "bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{RABBIT_PORT}", check=False
        )
        return asked.returncode == 0

    wait_for(listens)
    yield
    server.terminate()
    server.wait()


@pytest.fixture
def services(rabbit, database, cinder):
    """cinder.conf as it is when they start; they end with the test."""
    cinder.configure()
    running = []
    for name in ("cinder-api", "cinder-scheduler", "cinder-volume"):
        with open(f"/mnt/{name}.log", "w") as log:
            words = [*AS_CINDER, f"/srv/cinder/bin/{name}", "--config-file", "/etc/cinder/cinder.conf"]
            running.append(
                subprocess.Popen(words, env=ENVIRONMENT, cwd="/mnt/cinder", stdout=log, stderr=log)
            )

    def up():
        """The scheduler has heard of the volume service's group."""
        try:
            return call("GET", "/scheduler-stats/get_pools", timeout=3).json().get("pools")
        except requests.RequestException:
            return False

    wait_for(up)
    yield
    for process in running:
        process.terminate()
    for process in running:
        process.wait(timeout=60)


def status(volume):
    answer = call("GET", f"/volumes/{volume.id}")
    return answer.json()["volume"]["status"] if answer.ok else answer.status_code


def create():
    answer = call("POST", "/volumes", {"volume": {"size": 1, "name": "a tenant's"}})
    assert answer.status_code == 202, answer.text
    volume = Volume(id=answer.json()["volume"]["id"])
    wait_for(lambda: status(volume) in ("available", "error"))
    assert status(volume) == "available", Path("/mnt/cinder-volume.log").read_text()[-4000:]
    volume.fill()
    return volume


def delete(volume):
    assert call("DELETE", f"/volumes/{volume.id}").status_code == 202
    wait_for(lambda: status(volume) in (404, "error_deleting"), 120)
    return status(volume)


def test_a_volume_is_created_deleted_and_gone(services):
    volume = create()
    assert delete(volume) == 404
    assert not volume.exists() and volume.secrets() == 0
    [record] = certificates()
    assert record["verdict"] == "wiped" and record["details"]["job"]["volume_id"] == volume.id


def test_a_volume_that_is_not_cleared_is_kept_reset_and_deleted_again(services):
    volume = create()
    held = os.open(volume.node, os.O_RDWR | os.O_EXCL)
    try:
        assert delete(volume) == "error_deleting"
    finally:
        os.close(held)
    assert volume.exists() and volume.secrets() == 3
    log = Path("/mnt/cinder-volume.log").read_text()
    assert f"Volume {volume.id} is kept: {volume.node} was not cleared" in log
    reset = {"os-reset_status": {"status": "available"}}
    assert call("POST", f"/volumes/{volume.id}/action", reset).status_code == 202
    assert delete(volume) == 404
    assert not volume.exists() and volume.secrets() == 0
