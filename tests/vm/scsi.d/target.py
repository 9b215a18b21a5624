#!/usr/bin/env python3
"""A SCSI disk behind the kernel's own target, which hands its commands to this program (target_core_user).

target.py FOLDER UIO [--sata] [--sanitize-seconds N] [--fails]

FOLDER/media is its media, UIO the node by which the kernel shares its memory. With --sata it answers as libata does
for an ATA drive. On SIGUSR1 it begins to sanitize itself; from SIGUSR2 on its registers come back in sense data of
fixed format. Each command is written to FOLDER/commands: the CDB and the status, in hexadecimal digits.
"""

import argparse
import mmap
import os
import signal
import struct
import time
from pathlib import Path

BLOCK = 512
VENDOR, PRODUCT, REVISION, SERIAL = b"EFFACE  ", b"TEST SAS DRIVE  ", b"1.0 ", b"EFFACE-SAS-0001"
NAA = bytes.fromhex("5e0ffacee0000001")

GOOD, CHECK_CONDITION = 0x00, 0x02
NO_SENSE, NOT_READY, MEDIUM_ERROR, ILLEGAL_REQUEST, ABORTED = 0x00, 0x02, 0x03, 0x05, 0x0B
INVALID_OPCODE, INVALID_FIELD, OUT_OF_RANGE = 0x2000, 0x2400, 0x2100
SANITIZING, SANITIZE_FAILED = 0x041B, 0x3103
SANITIZE_ACTIONS = {1: "overwrite", 2: "block", 3: "crypto"}
# Words of IDENTIFY DEVICE: sanitize with block erase and crypto scramble; security with an enhanced erase of 2 min,
# not enabled; media that do not rotate.
WORDS = {59: 1 << 12 | 1 << 13 | 1 << 15, 82: 1 << 1, 83: 0x4400, 84: 0x4000, 87: 0x4000, 89: 30, 90: 1, 128: 0x21, 217: 1}


class Check(Exception):
    """CHECK CONDITION: sense key, additional sense code and qualifier, and how much is done of 65536."""

    def __init__(self, key: int, code: int, progress: int | None = None) -> None:
        specific = b"\0\0\0" if progress is None else struct.pack(">BH", 0x80, progress)
        self.sense = struct.pack(">BBB4xB4xH1x", 0x70, 0, key, 10, code) + specific


class Registers(Check):
    """Those of an ATA command that ended well or was aborted, in one of the two layouts of SAT."""

    def __init__(self, count: int, lba: int, error: int, fixed: bool) -> None:
        status, low = 0x51 if error else 0x50, lba.to_bytes(6, "little")
        if fixed:
            flags = 0x80 | (0x40 if count >> 8 else 0) | (0x20 if lba >> 24 else 0)
            self.sense = struct.pack(">BBBBBBBBB3sBB", 0xF0, 0, 1, error, status, 0x40, count & 0xFF, 10, flags, low[:3], 0, 0x1D)
        else:
            places = bytes([low[3], low[0], low[4], low[1], low[5], low[2]])
            self.sense = struct.pack(">BBBB3xBBBBBH6sBB", 0x72, 1, 0, 0x1D, 14, 9, 12, 1, error, count, places, 0x40, status)


class Disk:
    """What the commands do."""

    def __init__(self, folder: Path, seconds: float, fails: bool, sata: bool) -> None:
        self.sata, self.fixed_sense = sata, False
        self.media = (folder / "media").open("r+b")
        self.blocks = os.fstat(self.media.fileno()).st_size // BLOCK
        self.seconds, self.fails = seconds, fails
        self.begun: float | None = None
        self.action = 0
        self.failed = False

    def go_on(self) -> None:
        """What has ended by now."""
        if self.begun is not None and time.monotonic() >= self.begun + self.seconds:
            self.begun, self.failed = None, self.fails
            if not self.fails:
                fill = b"\0" if self.action != 3 else b"\xa5"
                self.media.seek(0)
                self.media.write(fill * (self.blocks * BLOCK))
                self.media.flush()

    def progress(self) -> int:
        """Of 65536."""
        return min(int((time.monotonic() - self.begun) / self.seconds * 65536), 65535)

    def condition(self) -> Check | None:
        if self.sata:
            return Check(ABORTED, 0) if self.failed or self.begun is not None else None
        if self.begun is not None:
            return Check(NOT_READY, SANITIZING, self.progress())
        return Check(MEDIUM_ERROR, SANITIZE_FAILED) if self.failed else None

    def execute(self, cdb: bytes, data: bytes) -> bytes:
        """The data that goes to the host."""
        self.go_on()
        opcode = cdb[0]
        if opcode == 0x85 and self.sata:
            return self.ata(cdb)
        if opcode == 0x03:
            condition = self.condition()
            return (condition or Check(NO_SENSE, 0)).sense[: cdb[4]]
        if opcode == 0x12:
            return self.inquiry(cdb)
        if opcode == 0xA3 and cdb[1] & 0x1F == 0x0C:
            return self.supported(cdb)
        if opcode == 0x48 and cdb[1] & 0x1F in SANITIZE_ACTIONS and self.begun is None:
            self.begun, self.action, self.failed = time.monotonic(), cdb[1] & 0x1F, False
            return b""
        condition = self.condition()
        if condition:
            raise condition
        return self.ready(cdb, data)

    def ready(self, cdb: bytes, data: bytes) -> bytes:
        opcode = cdb[0]
        if opcode in (0x00, 0x1B, 0x35, 0x91):
            return b""
        if opcode == 0x25:
            return struct.pack(">II", min(self.blocks - 1, 0xFFFF_FFFF), BLOCK)
        if opcode == 0x9E and cdb[1] & 0x1F == 0x10:
            page = struct.pack(">QIBBH", self.blocks - 1, BLOCK, 0, 0, 0).ljust(32, b"\0")
            return page[: int.from_bytes(cdb[10:14], "big")]
        if opcode == 0x1A:
            return bytes([3, 0, 0, 0])[: cdb[4]]
        if opcode == 0x5A:
            return bytes([0, 6, 0, 0, 0, 0, 0, 0])[: int.from_bytes(cdb[7:9], "big")]
        return self.transfer(cdb, data)

    def transfer(self, cdb: bytes, data: bytes) -> bytes:
        """READ and WRITE of 6, 10 and 16 bytes."""
        if cdb[0] in (0x08, 0x0A):
            block, count = int.from_bytes(cdb[1:4], "big") & 0x1F_FFFF, cdb[4] or 256
        elif cdb[0] in (0x28, 0x2A):
            block, count = struct.unpack(">I", cdb[2:6])[0], struct.unpack(">H", cdb[7:9])[0]
        elif cdb[0] in (0x88, 0x8A):
            block, count = struct.unpack(">QI", cdb[2:14])
        else:
            raise Check(ILLEGAL_REQUEST, INVALID_OPCODE)
        if block + count > self.blocks:
            raise Check(ILLEGAL_REQUEST, OUT_OF_RANGE)
        self.media.seek(block * BLOCK)
        if cdb[0] in (0x08, 0x28, 0x88):
            return self.media.read(count * BLOCK)
        self.media.write(data[: count * BLOCK])
        self.media.flush()
        return b""

    def ata(self, cdb: bytes) -> bytes:
        """ATA PASS-THROUGH (16): IDENTIFY DEVICE, and the sanitize status."""
        if cdb[14] == 0xEC:
            words = [0] * 256
            for number, word in WORDS.items():
                words[number] = word
            words[100], words[101] = self.blocks & 0xFFFF, self.blocks >> 16
            page = bytearray(struct.pack("<256H", *words))
            for at, text in ((20, SERIAL.ljust(20)), (46, b"1.0     "), (54, b"efface test ATA drive".ljust(40))):
                page[at : at + len(text)] = b"".join(text[two : two + 2][::-1] for two in range(0, len(text), 2))
            return bytes(page)
        if cdb[14] == 0xB4 and cdb[3:5] == b"\0\0":
            if self.failed:
                raise Registers(0, 1, 0x04, self.fixed_sense)
            if self.begun is None:
                raise Registers(0, 0xFFFF, 0, self.fixed_sense)
            raise Registers(1 << 14, self.progress(), 0, self.fixed_sense)
        raise Registers(0, 0, 0x04, self.fixed_sense)

    def inquiry(self, cdb: bytes) -> bytes:
        identifiers = struct.pack(">BBBB", 1, 3, 0, 8) + NAA
        pages = {
            0x00: bytes([0x00, 0x80, 0x83, 0xB0, 0xB1]),
            0x80: SERIAL,
            0x83: identifiers,
            0xB0: bytes(60),
            0xB1: struct.pack(">HBB", 1, 0, 0b0101_0000).ljust(60, b"\0"),
        }
        if not cdb[1] & 1:
            vendor = b"ATA     " if self.sata else VENDOR
            page = bytes([0, 0, 6, 2, 91, 0, 0, 2]) + vendor + PRODUCT + REVISION
            page = page.ljust(96, b"\0")
        elif cdb[2] in pages:
            page = struct.pack(">BBH", 0, cdb[2], len(pages[cdb[2]])) + pages[cdb[2]]
        else:
            raise Check(ILLEGAL_REQUEST, INVALID_FIELD)
        return page[: int.from_bytes(cdb[3:5], "big")]

    def supported(self, cdb: bytes) -> bytes:
        """REPORT SUPPORTED OPERATION CODES of one command, with or without a service action."""
        action = int.from_bytes(cdb[4:6], "big")
        known = cdb[3] == 0x48 and action in SANITIZE_ACTIONS
        answer = bytes([0, 3 if known else 1, 0, 10 if known else 0]) + (bytes([cdb[3], action]) + bytes(8)) * known
        return answer[: int.from_bytes(cdb[6:10], "big")]


class Ring:
    """The memory that the kernel and this program share (linux/target_core_user.h)."""

    COMMAND_OFFSET, COMMAND_SIZE, HEAD, TAIL = 4, 8, 12, 64
    PAD, COMMAND = 0, 1

    def __init__(self, node: Path, size: int) -> None:
        self.file = os.open(node, os.O_RDWR)
        self.memory = mmap.mmap(self.file, size)
        self.offset, self.size = self.word(self.COMMAND_OFFSET), self.word(self.COMMAND_SIZE)

    def word(self, at: int) -> int:
        return struct.unpack_from("<I", self.memory, at)[0]

    def serve(self, disk: Disk, log) -> None:
        while True:
            while (tail := self.word(self.TAIL)) != self.word(self.HEAD):
                at = self.offset + tail
                length_and_kind = self.word(at)
                kind, length = length_and_kind & 7, length_and_kind & ~7
                if kind == self.COMMAND:
                    self.answer(at, disk, log)
                elif kind != self.PAD:
                    self.memory[at + 7] |= 1  # not known
                struct.pack_into("<I", self.memory, self.TAIL, (tail + length) % self.size)
            os.write(self.file, b"\1\0\0\0")
            os.read(self.file, 4)

    def answer(self, at: int, disk: Disk, log) -> None:
        count, _, _, cdb_at = struct.unpack_from("<IIIxxxxQ", self.memory, at + 8)
        places = [struct.unpack_from("<QQ", self.memory, at + 48 + 16 * number) for number in range(count)]
        cdb = self.memory[cdb_at : cdb_at + 16]
        data = b"".join(self.memory[place : place + length] for place, length in places)
        status, sense, answer = GOOD, b"", b""
        try:
            answer = disk.execute(cdb, data)
        except Check as check:
            status, sense = CHECK_CONDITION, check.sense
        left = answer
        for place, length in places:
            part, left = left[:length], left[length:]
            self.memory[place : place + len(part)] = part
        struct.pack_into("<BBHI96s", self.memory, at + 8, status, 0, 0, 0, sense)
        print(cdb.hex(), f"{status:02x}", file=log)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("uio", type=Path)
    arguments.add_argument("--sanitize-seconds", type=float, default=2.0)
    for switch in ("--sata", "--fails"):
        arguments.add_argument(switch, action="store_true")
    asked = arguments.parse_args()
    size = int((Path("/sys/class/uio") / asked.uio.name / "maps/map0/size").read_text(), 0)
    disk = Disk(asked.folder, asked.sanitize_seconds, asked.fails, asked.sata)
    signal.signal(signal.SIGUSR2, lambda *_: setattr(disk, "fixed_sense", True))
    signal.signal(signal.SIGUSR1, lambda *_: disk.execute(bytes([0x48, 0x82]), b""))
    with (asked.folder / "commands").open("a", buffering=1) as log:
        Ring(asked.uio, size).serve(disk, log)


main()
