"""All of cinder: its API, scheduler and volume service over RabbitMQ, as tenants and operators see it."""

import os
import shutil
import signal
import socket
import subprocess
import textwrap
import threading
from pathlib import Path

import pytest
import requests
from conftest import (
    API_PORT,
    AS_CINDER,
    ENVIRONMENT,
    INTEGRATIONS,
    PROJECT,
    RABBIT_PORT,
    STOCK,
    Volume,
    certificates,
    job_states,
    logical_volumes,
    processes,
    run,
    wait_for,
)

# In memory, as the database: neither waits for the disk.
RABBIT = Path("/run/rabbit")
SERVICES = ("cinder-api", "cinder-scheduler", "cinder-volume")
URL = f"http://127.0.0.1:{API_PORT}/v3/{PROJECT}"


def call(method, path, body=None, timeout=60, version="3.0"):
    headers = {"X-Auth-Token": f"admin:{PROJECT}", "OpenStack-API-Version": f"volume {version}"}
    return requests.request(method, URL + path, json=body, headers=headers, timeout=timeout)


@pytest.fixture(scope="module")
def rabbit():
    home = RABBIT
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
        # The broker sends nothing first: it answers a wrong protocol header with its own.
        asked = run(
            "/usr/bin/timeout", "1", "bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{RABBIT_PORT}", check=False
        )
        return asked.returncode == 0

    wait_for(listens)
    yield
    server.terminate()
    server.wait()


class Services:
    """cinder's three, as the service's user."""

    def __init__(self):
        self.running = {}

    def start(self, name):
        words = [*AS_CINDER, f"/srv/cinder/bin/{name}", "--config-file", "/etc/cinder/cinder.conf"]
        with open(f"/mnt/{name}.log", "a") as log:
            options = {"env": ENVIRONMENT, "cwd": "/mnt/cinder", "stdout": log, "stderr": log}
            self.running[name] = subprocess.Popen(words, **options)

    def stop(self, name):
        process = self.running.pop(name)
        process.terminate()
        process.wait(timeout=120)

    def ready(self):
        """The scheduler has heard of the volume service's group."""
        try:
            return call("GET", "/scheduler-stats/get_pools", timeout=3).json().get("pools")
        except requests.RequestException:
            return False


@pytest.fixture
def services(rabbit, database, cinder, request):
    cinder.configure(**getattr(request, "param", {}))
    services = Services()
    try:
        for name in SERVICES:
            services.start(name)
        wait_for(services.ready)
        yield services
    except AssertionError as error:
        raise AssertionError(logs()) from error
    finally:
        for name in list(services.running):
            services.stop(name)


def logs():
    """The ends of all services' logs, and of the broker's."""
    files = [*(Path(f"/mnt/{name}.log") for name in SERVICES), *(RABBIT / "log").glob("*.log")]
    return "\n".join(f"== {file.name}\n{file.read_text()[-3000:]}" for file in files)


def status(volume):
    answer = call("GET", f"/volumes/{volume.id}")
    return answer.json()["volume"]["status"] if answer.ok else answer.status_code


def messages():
    """What the tenant can read of what failed; the list came with version 3.3 of the API."""
    return call("GET", "/messages", version="3.3").json()["messages"]


def create():
    answer = call("POST", "/volumes", {"volume": {"size": 1, "name": "a tenant's"}})
    assert answer.status_code == 202, answer.text
    volume = Volume(id=answer.json()["volume"]["id"])
    wait_for(lambda: status(volume) in ("available", "error"))
    assert status(volume) == "available", logs()
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
    reason = f"{volume.node} was not cleared"
    assert f"Volume {volume.id} is kept: {reason}" in log
    [message] = [each for each in messages() if each["resource_uuid"] == volume.id]
    assert message["message_level"] == "ERROR" and message["event_id"] == "VOLUME_VOLUME_006_001"
    [sent] = [line for line in log.splitlines() if "volume.delete.error" in line]
    assert volume.id in sent and f'"reason": "{reason}' in sent
    reset = {"os-reset_status": {"status": "available"}}
    assert call("POST", f"/volumes/{volume.id}/action", reset).status_code == 202
    assert delete(volume) == 404
    assert not volume.exists() and volume.secrets() == 0


def kill(process):
    """The service and its workers; what they started stays."""
    for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        if Path(f"/proc/{child}/comm").read_text().strip() == "cinder-volume":
            kill(child)
    os.kill(int(process), signal.SIGKILL)


def states():
    """Of the volume services, as `openstack volume service list` shows them."""
    listed = call("GET", "/os-services?binary=cinder-volume").json()["services"]
    return [service["state"] for service in listed]


SLOW = {
    "efface_rate": "48MiB/s",
    "efface_slots": "1",
    "DEFAULT": {"service_down_time": "5", "report_interval": "1"},
}


@pytest.mark.parametrize("services", [SLOW], indirect=True)
def test_a_killed_service_is_up_at_once_and_its_deletes_end_well(services):
    """Two deletes: one is at work, the other waits for the slot."""
    volumes = [create(), create()]
    for volume in volumes:
        assert call("DELETE", f"/volumes/{volume.id}").status_code == 202
    wait_for(lambda: sorted(job_states()) == ["running", "waiting"])
    left = processes("efface")
    kill(services.running["cinder-volume"].pid)
    services.running.pop("cinder-volume").wait()
    assert processes("efface") == left
    wait_for(lambda: states() == ["down"])
    services.start("cinder-volume")
    wait_for(lambda: states() == ["up"], 30)
    third = create()
    assert [status(volume) for volume in volumes] == ["deleting"] * 2, "they are not what it waited for"
    wait_for(lambda: [status(volume) for volume in volumes] == [404] * 2, 120)
    assert not any(volume.exists() or volume.secrets() for volume in volumes)
    assert len(certificates()) == 2, "neither was wiped again"
    assert third.exists() and third.secrets() == 3


FEW_WORKERS = {**SLOW, "efface_rate": "128MiB/s", "efface_deferred_delete": "true"}
FEW_WORKERS["DEFAULT"] = {**SLOW["DEFAULT"], "executor_thread_pool_size": "2"}


@pytest.mark.parametrize("services", [FEW_WORKERS], indirect=True)
def test_deferred_deletes_occupy_no_worker_and_outlive_a_restart(services):
    volumes = [create() for _ in range(4)]
    for volume in volumes:
        assert call("DELETE", f"/volumes/{volume.id}").status_code == 202
    wait_for(lambda: [status(volume) for volume in volumes] == [404] * 4, 20)
    assert [volume.waits() for volume in volumes] == [True] * 4
    used = call("GET", f"/os-quota-sets/{PROJECT}?usage=True").json()["quota_set"]
    assert (used["volumes"]["in_use"], used["gigabytes"]["in_use"]) == (0, 0)
    other = create()
    assert volumes[-1].waits(), "it was created meanwhile"
    services.stop("cinder-volume")
    services.start("cinder-volume")
    wait_for(lambda: not any(volume.waits() for volume in volumes), 120)
    assert not any(volume.secrets() for volume in volumes) and other.secrets() == 3


ONE_WORKER = {**SLOW, "efface_rate": "64MiB/s", "efface_delete_workers": "1"}
ONE_WORKER["DEFAULT"] = FEW_WORKERS["DEFAULT"]


@pytest.mark.parametrize("services", [ONE_WORKER], indirect=True)
def test_deletes_leave_the_workers_free_that_they_may_not_occupy(services):
    volumes = [create() for _ in range(4)]
    for volume in volumes:
        assert call("DELETE", f"/volumes/{volume.id}").status_code == 202
    wait_for(lambda: sorted(str(status(volume)) for volume in volumes) == ["404"] * 3 + ["deleting"], 20)
    other = create()
    assert "deleting" in [status(volume) for volume in volumes], "it was created meanwhile"
    wait_for(lambda: not any(volume.waits() or volume.exists() for volume in volumes), 120)
    assert [status(volume) for volume in volumes] == [404] * 4
    assert not any(volume.secrets() for volume in volumes) and other.secrets() == 3


STAND_INS = {
    "systemctl": """
        with socket.socket(socket.AF_UNIX) as asked:
            asked.connect("/mnt/systemctl")
            asked.send(" ".join(words).encode())
            sys.exit(asked.recv(1) != b"0")
    """,
    "openstack": """
        def call(method, path, body=None):
            headers = {"X-Auth-Token": TOKEN, "Content-Type": "application/json"}
            data = json.dumps(body).encode() if body else None
            asked = urllib.request.Request(URL + path, data, headers, method=method)
            with urllib.request.urlopen(asked) as answer:
                return json.loads(answer.read() or b"{}")
        verb, name = words[1], words[-1] if words[1] == "create" else words[2]
        if verb == "service":
            binary, host = (words[words.index(option) + 1] for option in ("--service", "--host"))
            for each in call("GET", f"/os-services?binary={binary}&host={host}")["services"]:
                print(each["state"])
        elif verb == "create":
            call("POST", "/volumes", {"volume": {"size": int(words[3]), "name": name}})
        else:
            found = [each for each in call("GET", "/volumes/detail")["volumes"] if each["name"] == name]
            if not found:
                sys.exit("No volume with a name or ID of " + name)
            if verb == "delete":
                call("DELETE", "/volumes/" + found[0]["id"])
            print(found[0]["status"])
    """,
}


@pytest.fixture
def stand_ins(services, tmp_path):
    """systemctl and openstack for a machine that has neither."""
    head = "#!/usr/bin/python3\nimport json, socket, sys, urllib.request\n"
    head += f"URL, TOKEN, words = {URL!r}, 'admin:{PROJECT}', sys.argv[1:]\n"
    for name, body in STAND_INS.items():
        (tmp_path / name).write_text(head + textwrap.dedent(body))
        (tmp_path / name).chmod(0o755)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("/mnt/systemctl")
    listener.listen()

    def serve():
        while True:
            try:
                asked, _ = listener.accept()
            except OSError:
                return
            verb, name = asked.recv(256).decode().split()
            if verb in ("stop", "restart"):
                services.stop(name)
            if verb in ("start", "restart"):
                services.start(name)
            asked.send(b"0")
            asked.close()

    threading.Thread(target=serve, daemon=True).start()
    yield tmp_path
    listener.close()
    Path("/mnt/systemctl").unlink()


def run_the_lines_of(chapter, deb, stand_ins):
    """In a checkout where the package has been made."""
    page = (INTEGRATIONS / "openstack/README.md").read_text()
    lines = page.split(chapter)[1].split("```\n")[1]
    assert len(lines.splitlines()) <= 10
    checkout = Path("/mnt/checkout")
    (checkout / "target/debian").mkdir(parents=True, exist_ok=True)
    shutil.copy(deb, checkout / "target/debian")
    shutil.copytree(INTEGRATIONS / "openstack", checkout / "integrations/openstack", dirs_exist_ok=True)
    path = f"{stand_ins}:/srv/cinder/bin:/usr/sbin:/usr/bin"
    environment = {"PATH": path, "DEBIAN_FRONTEND": "noninteractive", "HOME": "/mnt"}
    environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/srv/builds"}
    # Its loops wait for cinder, and here not for ever.
    ran = run(
        "timeout", "600", "bash", "-euo", "pipefail", "-c", lines, cwd=checkout, env=environment, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr + logs()


@pytest.mark.parametrize("services", [{"volume_driver": STOCK}], indirect=True)
def test_the_page_leads_from_the_packages_to_a_certificate(deb, stand_ins):
    # It may have been installed by another test.
    run("dpkg", "--purge", "efface", check=False)
    shutil.rmtree("/usr/share/cinder/rootwrap", ignore_errors=True)
    shutil.rmtree("/var/lib/efface", ignore_errors=True)
    Path("/usr/bin/efface").unlink(missing_ok=True)
    run_the_lines_of("## Cinder: from the packages", deb, stand_ins)
    [record] = certificates()
    assert record["verdict"] == "wiped"


EARLIER_PROGRAM = """#!/bin/sh
[ "$1" != --version ] || { echo efface 0.0.9; exit; }
exec /usr/lib/efface/efface "$@"
"""


@pytest.fixture
def earlier_version(machine, deb, tmp_path):
    """This package and this driver, under an earlier number."""

    def renumber(file):
        file.write_text(file.read_text().replace("0.1.0", "0.0.9").replace(r"0\.1\.0", r"0\.0\.9"))

    tree, package = tmp_path / "package", tmp_path / "efface.deb"
    run("dpkg-deb", "--raw-extract", deb, tree)
    for file in ("DEBIAN/control", "usr/share/cinder/rootwrap/efface.filters"):
        renumber(tree / file)
    (tree / "usr/lib/efface").mkdir(parents=True)
    program = tree / "usr/bin/efface"
    program.rename(tree / "usr/lib/efface/efface")
    program.write_text(EARLIER_PROGRAM)
    program.chmod(0o755)
    run("dpkg-deb", "-Znone", "--build", tree, package)
    quiet = {"env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}}
    run("apt-get", "install", "--yes", "--allow-downgrades", package, **quiet)
    [driver] = Path("/srv/cinder/lib").glob("python3*/site-packages/efface_openstack/command.py")
    # The environment outlives the test.
    now = driver.read_text()
    renumber(driver)
    yield
    driver.write_text(now)


UPGRADED = {**SLOW, "efface_deferred_delete": "true"}


@pytest.mark.parametrize("services", [UPGRADED], indirect=True)
def test_an_upgrade_in_the_order_of_the_page_loses_nothing_that_waits(earlier_version, deb, stand_ins):
    log = Path("/mnt/cinder-volume.log")
    start = log.stat().st_size
    volumes = [create() for _ in range(2)]
    for volume in volumes:
        assert delete(volume) == 404
    wait_for(lambda: "running" in job_states())
    assert run("efface", "--version").stdout == "efface 0.0.9\n"
    run_the_lines_of("### Upgrades", deb, stand_ins)
    assert run("efface", "--version").stdout.startswith("efface 0.1.0")
    wait_for(lambda: logical_volumes() == [], 150)
    assert not any(volume.secrets() for volume in volumes)
    cleared = {record["details"]["job"]["volume_id"] for record in certificates()}
    assert {volume.id for volume in volumes} < cleared, "that of the page too"
    assert b" is kept: " not in log.read_bytes()[start:]
