"""Disks with faults, served over NBD, and the reader that looks for old data on their media.

The medium is what a drive keeps without power. A fault decides what of a request reaches it, and counts
each time that it acts. The reader looks at the medium itself: no layer of the guest, no cache and no
fault lies between.
"""

import array
import contextlib
import functools
import socket
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

MIB = 1 << 20
BLOCK = 4096
UNIT = 16  # bytes: the magic, then the number of the unit
MAGIC = b"OLD DATA"
EIO = 5
NBD_CMD_READ, NBD_CMD_WRITE, NBD_CMD_DISC, NBD_CMD_FLUSH, NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES = 0, 1, 2, 3, 4, 6
FLAGS = 1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6  # has flags, FLUSH, FUA, TRIM, WRITE_ZEROES
NBD_FLAG_FUA = 1
NBD_OPT_EXPORT_NAME, NBD_OPT_ABORT, NBD_OPT_GO = 1, 2, 7
NBD_REP_ACK, NBD_REP_INFO, NBD_REP_ERR_UNSUP = 1, 3, 0x80000001

Ranges = tuple[tuple[int, int], ...]


@functools.cache
def old_data(size: int) -> bytes:
    """Each unit of 16 bytes is the magic and its own number."""
    units = size // UNIT
    words = array.array("Q", bytes(size))
    words[0::2] = array.array("Q", MAGIC * units)
    words[1::2] = array.array("Q", range(units))
    return words.tobytes()


@dataclass
class Survivors:
    """What the reader finds."""

    bytes: int
    torn_blocks: int  # blocks of 4 KiB of which a part is old
    ranges: list[tuple[int, int]]  # whole blocks


def survivors(medium: bytes) -> Survivors:
    found, torn, ranges = 0, 0, []
    for at in range(0, len(medium), BLOCK):
        units = medium.count(MAGIC, at, at + BLOCK)
        if not units:
            continue
        found += units * UNIT
        torn += units < BLOCK // UNIT
        if ranges and ranges[-1][1] == at:
            ranges[-1] = (ranges[-1][0], at + BLOCK)
        else:
            ranges.append((at, at + BLOCK))
    return Survivors(found, torn, ranges)


@dataclass(frozen=True)
class Faults:
    """Ranges are bytes, in whole blocks of 4 KiB."""

    drop: Ranges = ()  # writes, zeroes and discards are confirmed and not done
    tear: Ranges = ()  # of each block only the first half is written
    bad_write: Ranges = ()  # EIO; what comes before it in the request is done
    bad_read: Ranges = ()  # EIO
    retire: Ranges = ()  # writes go to spare sectors, which reads show too; the medium keeps the old ones
    ignore_discard: bool = False
    cache_bytes: int = 0  # a volatile cache, written back first in, first out
    flush: str = "works"  # or fails (EIO), or lies (confirmed and not done)
    vanish_at: int | None = None  # the write that reaches this byte is the last one
    slow_at: int | None = None  # the write that reaches this byte is waited for, and later ones are slow


@dataclass
class Disk:
    medium: bytearray
    faults: Faults = field(default_factory=Faults)

    def __post_init__(self) -> None:
        self.spare = {}
        self.cache: OrderedDict[int, bytes] = OrderedDict()
        self.lock = threading.Lock()
        self.acted = 0
        self.changed = 0  # bytes of requests to write, write zeroes or discard
        self.gone = False
        self.slow = threading.Event()
        self.released = threading.Event()
        self.on_vanish: Callable[[], None] = lambda: None

    def cut_power(self) -> bytes:
        """What the medium holds without the cache; the disk goes on, healthy, with other bytes."""
        with self.lock:
            kept = bytes(self.medium)
            self.faults = Faults()
            self.cache.clear()
            return kept

    def read(self, at: int, length: int) -> bytearray | None:
        if self.gone:
            return None
        if overlaps(self.faults.bad_read, at, length):
            self.acted += 1
            return None
        data = bytearray(self.medium[at : at + length])
        for block in range(at // BLOCK, (at + length + BLOCK - 1) // BLOCK):
            newer = self.cache.get(block, self.spare.get(block))
            if newer is not None:
                start, end = max(at, block * BLOCK), min(at + length, (block + 1) * BLOCK)
                data[start - at : end - at] = newer[start - block * BLOCK : end - block * BLOCK]
        return data

    def write(self, at: int, data: bytes) -> bool:
        """Whether the disk confirms it."""
        if self.gone:
            return False
        self.changed += len(data)
        end, confirmed = at + len(data), True
        bad = min((max(start, at) for start, stop in self.faults.bad_write if start < end and at < stop), default=end)
        last = self.faults.vanish_at
        if bad < end:
            self.acted += 1
            end, confirmed = bad, False
        if last is not None and at <= last < end:
            self.acted += 1
            self.gone = True
            end, confirmed = last, False
            threading.Thread(target=self.on_vanish).start()
        if self.faults.cache_bytes:
            self.keep(at, data[: end - at])
        else:
            self.settle(at, data[: end - at])
        return confirmed

    def keep(self, at: int, data: bytes) -> None:
        """In the cache, in whole blocks; what it has no space for is settled."""
        for block in range(at // BLOCK, (at + len(data) + BLOCK - 1) // BLOCK):
            start, end = max(at, block * BLOCK), min(at + len(data), (block + 1) * BLOCK)
            whole = self.read(block * BLOCK, BLOCK)
            whole[start - block * BLOCK : end - block * BLOCK] = data[start - at : end - at]
            self.cache[block] = bytes(whole)
            self.acted += 1
        while len(self.cache) * BLOCK > self.faults.cache_bytes:
            self.settle_oldest()

    def settle_oldest(self) -> None:
        block, data = self.cache.popitem(last=False)
        self.settle(block * BLOCK, data)

    def settle(self, at: int, data: bytes) -> None:
        """On the medium, but for what a fault keeps from it."""
        faults = self.faults
        special = [(faults.drop, BLOCK), (faults.tear, BLOCK // 2), (faults.retire, BLOCK)]
        kept = []
        for ranges, left in special:
            for block in blocks_in(ranges, at, len(data)):
                start = block * BLOCK + BLOCK - left
                kept.append((start, bytes(self.medium[start : (block + 1) * BLOCK])))
                self.acted += 1
        for block in blocks_in(faults.retire, at, len(data)):
            whole = bytearray(self.spare.get(block, self.medium[block * BLOCK : (block + 1) * BLOCK]))
            start, end = max(at, block * BLOCK), min(at + len(data), (block + 1) * BLOCK)
            whole[start - block * BLOCK : end - block * BLOCK] = data[start - at : end - at]
            self.spare[block] = whole
        self.medium[at : at + len(data)] = data
        for start, bytes_before in kept:
            self.medium[start : start + len(bytes_before)] = bytes_before

    def discard(self, at: int, length: int) -> bool:
        if self.faults.ignore_discard and not self.gone:
            self.acted += 1
            self.changed += length
            return True
        return self.write(at, bytes(length))

    def flush(self) -> bool:
        if self.gone:
            return False
        if self.faults.flush == "works":
            while self.cache:
                self.settle_oldest()
            return True
        self.acted += 1
        return self.faults.flush == "lies"

    def wait_if_slow(self, at: int, length: int) -> None:
        mark = self.faults.slow_at
        if mark is not None and (self.slow.is_set() or at <= mark < at + length):
            self.slow.set()
            if not self.released.is_set():
                time.sleep(0.2)


def overlaps(ranges: Ranges, at: int, length: int) -> bool:
    return any(start < at + length and at < stop for start, stop in ranges)


def blocks_in(ranges: Ranges, at: int, length: int) -> list[int]:
    """The blocks of the ranges that a request touches."""
    return [
        block
        for start, stop in ranges
        for block in range(max(start, at) // BLOCK, (min(stop, at + length) + BLOCK - 1) // BLOCK)
        if max(start, at) < min(stop, at + length)
    ]


class Server:
    """Serves disks by the name of their export, on a socket of this machine."""

    def __init__(self, path: Path) -> None:
        self.disks: dict[str, Disk] = {}
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=(peer,), daemon=True).start()

    def serve(self, peer: socket.socket) -> None:
        with contextlib.suppress(EOFError, OSError), peer:
            disk = self.negotiate(peer)
            while answer(peer, disk):
                pass

    def negotiate(self, peer: socket.socket) -> Disk:
        """The fixed newstyle negotiation of the NBD protocol."""
        peer.sendall(b"NBDMAGIC" + b"IHAVEOPT" + struct.pack(">H", 1))
        exactly(peer, 4)
        while True:
            _, option, length = struct.unpack(">QII", exactly(peer, 16))
            content = exactly(peer, length)

            def reply(kind: int, data: bytes = b"", option: int = option) -> None:
                peer.sendall(struct.pack(">QIII", 0x3E889045565A9, option, kind, len(data)) + data)

            if option == NBD_OPT_GO:
                (name_length,) = struct.unpack_from(">I", content)
                disk = self.disks[content[4 : 4 + name_length].decode()]
                reply(NBD_REP_INFO, struct.pack(">HQH", 0, len(disk.medium), FLAGS))
                reply(NBD_REP_ACK)
                return disk
            if option in (NBD_OPT_EXPORT_NAME, NBD_OPT_ABORT):
                raise EOFError
            reply(NBD_REP_ERR_UNSUP)


def answer(peer: socket.socket, disk: Disk) -> bool:
    """One request; False where it was the last one."""
    _, flags, command, handle, at, length = struct.unpack(">IHHQQI", exactly(peer, 28))
    data = exactly(peer, length) if command == NBD_CMD_WRITE else b""
    content: bytes | bytearray | None = b""
    with disk.lock:
        if command == NBD_CMD_READ:
            content = disk.read(at, length)
            confirmed = content is not None
        elif command == NBD_CMD_WRITE:
            confirmed = disk.write(at, data)
        elif command == NBD_CMD_WRITE_ZEROES:
            confirmed = disk.write(at, bytes(length))
        elif command == NBD_CMD_TRIM:
            confirmed = disk.discard(at, length)
        elif command == NBD_CMD_FLUSH:
            confirmed = disk.flush()
        else:
            return False
        if confirmed and flags & NBD_FLAG_FUA:
            confirmed = disk.flush()
    if command in (NBD_CMD_WRITE, NBD_CMD_WRITE_ZEROES, NBD_CMD_TRIM):
        disk.wait_if_slow(at, length)
    peer.sendall(struct.pack(">IIQ", 0x67446698, 0 if confirmed else EIO, handle) + (content or b""))
    return True


def exactly(peer: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        part = peer.recv(min(length - len(data), 4 * MIB))
        if not part:
            raise EOFError
        data += part
    return bytes(data)
