"""What the benchmarks share: devices of their own, timed runs, tables. Only devices that losetup and zram's
hot_add name here are touched."""

import contextlib
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EFFACE = ROOT / "target/release/efface"
MIB, GIB = 1 << 20, 1 << 30
MEMORY = "/dev/shm"


def install(script, needs):
    """Packages for these commands, and a fresh build."""
    if os.geteuid() != 0:
        sys.exit(f"{script}: only root makes loop devices")
    packages = [package for command, package in needs.items() if not shutil.which(command)]
    if packages:
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        subprocess.run(["apt-get", "install", "-qq", "-y", *packages], check=True)
    subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=ROOT, check=True)


@contextlib.contextmanager
def loop_device(size, *options, where=None):
    """A loop device over a sparse image, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="efface-bench-", dir=where) as folder:
        image = Path(folder, "image")
        with image.open("wb") as file:  # closed before it is wiped: efface refuses a file that another process may write to
            file.truncate(size)
        made = subprocess.run(
            ["losetup", "--find", "--show", *options, image], check=True, capture_output=True, text=True
        )
        node = made.stdout.strip()
        try:
            yield node
        finally:
            subprocess.run(["losetup", "--detach", node], check=True)


@contextlib.contextmanager
def zram_device(size):
    """A zram device of our own, gone afterwards; none where the kernel has no zram."""
    control = Path("/sys/class/zram-control")
    if not control.exists():
        yield None
        return
    number = (control / "hot_add").read_text().strip()
    folder = Path(f"/sys/block/zram{number}")
    try:
        (folder / "disksize").write_text(str(size))
        yield f"/dev/zram{number}"
    finally:
        # A ring that was closed lets go of its device only a moment later.
        for _ in range(100):
            with contextlib.suppress(OSError):
                (folder / "reset").write_text("1")
                break
            time.sleep(0.1)
        (control / "hot_remove").write_text(number)


def cold(node):
    """The file below a loop device leaves the page cache, as efface makes it before a pass: so all begin alike."""
    backing = Path(f"/sys/block/{Path(node).name}/loop/backing_file")
    os.sync()
    if backing.exists():
        file = os.open(backing.read_text().strip(), os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


class Run:
    """One command, timed: wall seconds, CPU seconds of the process, peak memory in MiB, and its output."""

    def __init__(self, command, cold_node=None, output=subprocess.DEVNULL):
        cold(cold_node) if cold_node else os.sync()
        started = time.monotonic()
        with tempfile.TemporaryFile() as errors:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors)
            self.output = child.stdout.read().decode() if child.stdout else ""
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            self.seconds = time.monotonic() - started
            errors.seek(0)
            if child.returncode != 0:
                sys.exit(f"{command}: exit {child.returncode}: {errors.read().decode(errors='replace')}")
        self.cpu = usage.ru_utime + usage.ru_stime
        self.mib = usage.ru_maxrss / 1024


class Job(Run):
    """A run of efface on one device, with the steps of its record."""

    def __init__(self, *arguments, cold_node=None):
        super().__init__([str(EFFACE), *arguments, "--json"], cold_node, subprocess.PIPE)
        self.record = json.loads(self.output.splitlines()[-1])["devices"][0]
        steps = self.record["job"]["steps"]
        kinds = [step["step"]["operation"]["kind"] for step in steps]
        times = [step["milliseconds"] / 1000 for step in steps]
        self.write = sum(time for kind, time in zip(kinds, times) if kind == "write")
        self.compare = sum(time for kind, time in zip(kinds, times) if kind == "compare")
        self.steps = sum(times)


class Fio(Run):
    """A run of fio on one device, with the run time that it states, flush included."""

    def __init__(self, node, size, way, block, depth, cold_node=None):
        fill = "--zero_buffers=1 --end_fsync=1" if way == "write" else ""
        command = (
            f"fio --name=fill --filename={node} --size={size} --rw={way} --bs={block} --iodepth={depth} {fill} "
            "--ioengine=io_uring --direct=1 --registerfiles=1 --fixedbufs=1 --output-format=json"
        )
        super().__init__(command.split(), cold_node, subprocess.PIPE)
        job = json.loads(self.output[self.output.index("{"):])["jobs"][0]
        self.write = self.compare = job["job_runtime"] / 1000


def median(runs, field="seconds"):
    return statistics.median(getattr(run, field) for run in runs)


def table(head, rows):
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join(lines + [f"| {' | '.join(map(str, row))} |" for row in rows])


def targets(rows):
    """Rows of what, the measured value, the limit, and its sense."""
    reached = lambda value, limit, sense: value >= limit if sense == "at least" else value <= limit
    return table(["what", "target", "measured", "reached"], [
        [what, f"{sense} {limit}", f"{value:.2f}", "yes" if reached(value, limit, sense) else "**no**"]
        for what, value, limit, sense in rows
    ])


def machine():
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = int(re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())[1]) / (1 << 20)
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return (f"Machine: {cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB, "
            f"Linux {platform.release()}. efface {commit.stdout.strip()}")


def say(text):
    print(text, file=sys.stderr, flush=True)
