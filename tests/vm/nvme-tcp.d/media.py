"""The media of a drive: a file for each namespace, and the sanitize operation that erases them.

The state of the operation is a file too, so that a target that was killed goes on with it where it was.
"""

import os
import threading
import time
from pathlib import Path

BLOCK = 512
ERASED_TOGETHER = 1 << 16
TICK_SECONDS = 0.1

# SSTAT 2:0.
NEVER, COMPLETED, IN_PROGRESS, FAILED = range(4)
# SSI 3:0.
IDLE, RESTRICTED, RESTRICTED_FAILURE, UNRESTRICTED, UNRESTRICTED_FAILURE = range(5)
# SANACT.
EXIT_FAILURE, BLOCK_ERASE, OVERWRITE, CRYPTO_ERASE = range(1, 5)
ALLOW_UNRESTRICTED_EXIT = 1 << 3

LIES = ("nothing", "keep-region", "wrong-dword", "fail")

# Statuses, with "do not retry".
INVALID_FIELD, SANITIZE_FAILED, SANITIZE_IN_PROGRESS = 0x4002, 0x401C, 0x401D


class State:
    """What survives a loss of power."""

    def __init__(self, **fields: int) -> None:
        self.result = self.state = self.failed_in = 0
        self.erased = 0  # nothing was written since
        self.command = self.pattern = 0  # dwords 10 and 11
        self.milliseconds = 0  # of an operation that runs
        vars(self).update(fields)

    @classmethod
    def load(cls, path: Path) -> "State":
        lines = path.read_text().splitlines() if path.exists() else []
        return cls(**{name: int(value) for name, value in (line.split() for line in lines)})

    def save(self, path: Path, durable: bool) -> None:
        new = path.with_suffix(".new")
        with new.open("w") as file:
            file.write("".join(f"{name} {value}\n" for name, value in vars(self).items()))
            if durable:
                file.flush()
                os.fsync(file.fileno())
        new.rename(path)
        if durable:
            folder = os.open(path.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)


class Namespace:
    """One file."""

    def __init__(self, path: Path) -> None:
        self.file = os.open(path, os.O_RDWR)
        self.size = os.fstat(self.file).st_size

    @property
    def blocks(self) -> int:
        return self.size // BLOCK

    def read(self, block: int, count: int) -> bytes:
        return os.pread(self.file, count * BLOCK, block * BLOCK)

    def write(self, block: int, data: bytes) -> None:
        os.pwrite(self.file, data, block * BLOCK)

    def flush(self) -> None:
        os.fsync(self.file)

    def erase(self, action: int, pattern: bytes, keep: range) -> None:
        """All but some bytes."""
        same = pattern * (ERASED_TOGETHER // len(pattern))
        for at in range(0, self.size, ERASED_TOGETHER):
            if at not in keep:
                data = os.urandom(ERASED_TOGETHER) if action == CRYPTO_ERASE else same
                os.pwrite(self.file, data[:self.size - at], at)
        self.flush()


class Media:
    """All namespaces, numbered from 1, and the operation. The caller holds `lock`."""

    def __init__(self, folder: Path, seconds: float, lie: str | None) -> None:
        self.lock = threading.RLock()
        self.path, self.seconds, self.lie = folder / "state", seconds, lie
        files = sorted(folder.glob("ns*"), key=lambda path: int(path.name[2:]))
        self.namespaces = {int(path.name[2:]): Namespace(path) for path in files}
        self.state = State.load(self.path)
        self.ended = lambda: None
        if self.runs():
            self.go_on()

    def runs(self) -> bool:
        return self.state.result == IN_PROGRESS

    def prohibits(self) -> int:
        """The status of a command that needs the media, 0 where it is executed."""
        if self.runs():
            return SANITIZE_IN_PROGRESS
        return SANITIZE_FAILED if self.state.state != IDLE else 0

    def written(self) -> None:
        if self.state.erased:
            self.state.erased = 0
            self.save(durable=True)

    def save(self, durable: bool = False) -> None:
        self.state.save(self.path, durable)

    def sanitize(self, nsid: int, command: int, pattern: int) -> int:
        """The status of the Sanitize command, which begins an operation."""
        action, unrestricted = command & 7, bool(command & ALLOW_UNRESTRICTED_EXIT)
        if nsid or not EXIT_FAILURE <= action <= CRYPTO_ERASE or action == EXIT_FAILURE and unrestricted:
            return INVALID_FIELD
        if self.runs():
            return SANITIZE_IN_PROGRESS
        if self.state.state == RESTRICTED_FAILURE and (unrestricted or action == EXIT_FAILURE):
            return SANITIZE_FAILED
        if action == EXIT_FAILURE:
            self.state.state = IDLE
        else:
            state = UNRESTRICTED if unrestricted else RESTRICTED
            self.state = State(result=IN_PROGRESS, state=state, command=command, pattern=pattern)
            self.go_on()
        self.save(durable=True)
        return 0

    def go_on(self) -> None:
        threading.Thread(target=self.work, daemon=True).start()

    def work(self) -> None:
        at = time.monotonic()
        while self.runs():
            time.sleep(TICK_SECONDS)
            with self.lock:
                now = time.monotonic()
                self.state.milliseconds += round((now - at) * 1000)
                at = now
                if self.state.milliseconds >= self.seconds * 1000:
                    self.end()
                elif self.lie == "fail" and self.state.milliseconds >= self.seconds * 500:
                    self.fail()
                else:
                    self.save()

    def end(self) -> None:
        if self.lie != "nothing":
            action = self.state.command & 7
            pattern = self.state.pattern.to_bytes(4, "little") if action == OVERWRITE else b"\0"
            for namespace in self.namespaces.values():
                kept = range(namespace.size // 4, namespace.size // 2)
                namespace.erase(action, pattern, kept if self.lie == "keep-region" else range(0))
        self.state.result, self.state.state, self.state.erased = COMPLETED, IDLE, 1
        self.save(durable=True)
        self.ended()

    def fail(self) -> None:
        self.state.result, self.state.failed_in = FAILED, self.state.state
        self.state.state += 1
        self.save(durable=True)
        self.ended()

    def log(self) -> bytes:
        """Log page 81h."""
        state, estimate = self.state, round(self.seconds).to_bytes(4, "little")
        progress = min(state.milliseconds * 65536 // round(self.seconds * 1000), 65534) if self.runs() else 0xFFFF
        wrong = 0b110 if self.lie == "wrong-dword" and state.result != NEVER else 0
        page = progress.to_bytes(2, "little") + bytes([state.result, state.erased])
        page += (state.command ^ wrong).to_bytes(4, "little") + estimate * 6 + bytes(4)
        return (page + bytes([state.state | state.failed_in << 4])).ljust(512, b"\0")
