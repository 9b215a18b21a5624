#!/usr/bin/env python3
"""An NVMe drive behind NVMe/TCP, for the kernel's own driver.

target.py FOLDER [--sanitize-seconds N] [--lie LIE] [--format-reaches-all] [--reserved NSID]

The files ns1, ns2 and so on in FOLDER are its namespaces. It keeps the state of its sanitize operation in
FOLDER/state, and writes each command that it gets to FOLDER/commands: queue (admin or io), opcode, namespace,
dword 10 and status, in hexadecimal digits. A drive that lies says that an operation is done and has erased
nothing, or all but a region; or names another command in its status; or fails halfway. A namespace can be reserved
by another host.
"""

import argparse
import socket
import struct
import threading
import time
from pathlib import Path

from media import BLOCK, INVALID_FIELD, LIES, Media
from pdu import FABRICS, Command, Connection

PORT = 4420
SERIAL, MODEL, NQN = b"EFFACE-TCP-0001", b"efface test drive", b"nqn.2014-08.org.example:efface-test"
CONTROLLER = 1
SECURE_ERASE_ACTION = {1: 2, 2: 4}  # a format erases as a sanitize operation does
FORMAT_SECONDS = 1.0

# Statuses, with "do not retry".
SUCCESS, INVALID_OPCODE, INVALID_NAMESPACE, OUT_OF_RANGE = 0, 0x4001, 0x400B, 0x4080
INVALID_LOG, INVALID_FORMAT = 0x4109, 0x410A

CONNECT, PROPERTY_SET, PROPERTY_GET, DISCONNECT = 0x01, 0x00, 0x04, 0x08
CAP, VS, CC, CSTS = 0x00, 0x08, 0x14, 0x1C
# 128 entries, contiguous queues, 30 s to get ready, the NVM command set; NVMe 1.4.
CAPABILITIES, VERSION = 127 | 1 << 16 | 60 << 24 | 1 << 37, 0x0001_0400
SANITIZE_COMPLETED = 6 | 1 << 8 | 0x81 << 16
ADMIN_OPCODES = (0x02, 0x06, 0x08, 0x09, 0x0A, 0x0C, 0x18, 0x80, 0x84)
IO_OPCODES = (0x00, 0x01, 0x02, 0x0E)
RESERVATIONS = 1 << 5  # of ONCS
WRITE_EXCLUSIVE = 1


def put(page: bytearray, at: int, data: bytes) -> None:
    page[at:at + len(data)] = data


def nguid(nsid: int) -> bytes:
    return b"efface-test\0" + nsid.to_bytes(4, "big")


class Drive:
    """The controller: every command is executed here."""

    def __init__(self, folder: Path, media: Media, format_reaches_all: bool, reserved: int | None) -> None:
        self.media = media
        self.media.ended = self.sanitize_ended
        self.format_reaches_all, self.reserved = format_reaches_all, reserved
        self.formatting: set[int] = set()
        self.commands = (folder / "commands").open("a", buffering=1)
        self.configuration = 0
        self.held: list[tuple[Connection, Command]] = []

    def execute(self, connection: Connection, command: Command, data: bytes) -> None:
        with self.media.lock:
            if command.opcode == FABRICS:
                answer = self.fabrics(connection, command, data)
            elif connection.queue:
                answer = self.io(command, data)
            elif command.opcode == 0x0C:
                self.held.append((connection, command))
                return
            elif command.opcode == 0x80:
                answer = self.format(connection, command)
            else:
                answer = self.admin(command)
            if answer is not None:
                self.end(connection, command, *answer)

    def end(self, connection: Connection, command: Command, status: int, result: int = 0, data: bytes = b"") -> None:
        if command.opcode != FABRICS:
            queue = "io" if connection.queue else "admin"
            line = f"{queue} {command.opcode:02x} {command.nsid:x} {command.dwords[0]:08x} {status:04x}"
            print(line, file=self.commands)
        connection.answer(command, status, result, data)

    def sanitize_ended(self) -> None:
        if self.held:
            connection, command = self.held.pop(0)
            connection.answer(command, SUCCESS, SANITIZE_COMPLETED)

    # -- Fabrics ---------------------------------------------------------------------------------------

    def fabrics(self, connection: Connection, command: Command, data: bytes) -> tuple:
        kind = command.entry[4]
        offset, value = struct.unpack_from("<IQ", command.entry, 44)
        if kind == CONNECT:
            connection.queue = struct.unpack_from("<H", command.entry, 42)[0]
            if connection.queue == 0:
                self.configuration, self.held = 0, []
            known = data[256:512].rstrip(b"\0") == NQN
            return (SUCCESS, CONTROLLER) if known else (0x4182,)
        if kind == PROPERTY_GET:
            ready = self.configuration & 1 | (0b1000 if self.configuration >> 14 & 3 else 0)
            values = {CAP: CAPABILITIES, VS: VERSION, CC: self.configuration, CSTS: ready}
            return (SUCCESS, values[offset]) if offset in values else (INVALID_FIELD,)
        if kind == PROPERTY_SET and offset == CC:
            self.configuration = value & 0xFFFF_FFFF
            return (SUCCESS,)
        return (SUCCESS,) if kind == DISCONNECT else (INVALID_FIELD,)

    # -- I/O -------------------------------------------------------------------------------------------

    def io(self, command: Command, data: bytes) -> tuple:
        namespace = self.media.namespaces.get(command.nsid)
        prohibited = self.media.prohibits() or (0x4084 if command.nsid in self.formatting else 0)
        if command.opcode not in IO_OPCODES:
            return (INVALID_OPCODE,)
        if prohibited:
            return (prohibited,)
        if command.opcode == 0x00:
            for each in self.media.namespaces.values():
                each.flush()
            return (SUCCESS,)
        if namespace is None:
            return (INVALID_NAMESPACE,)
        if command.opcode == 0x0E:
            held = command.nsid == self.reserved
            report = struct.pack("<IBH", 1, WRITE_EXCLUSIVE, 1) if held else b""
            return SUCCESS, 0, report.ljust((command.dwords[0] + 1) * 4, b"\0")
        block, count = command.dwords[0] | command.dwords[1] << 32, (command.dwords[2] & 0xFFFF) + 1
        if block + count > namespace.blocks:
            return (OUT_OF_RANGE,)
        if command.opcode == 0x02:
            return SUCCESS, 0, namespace.read(block, count)
        if len(data) != count * BLOCK:
            return (INVALID_FIELD,)
        namespace.write(block, data)
        self.media.written()
        return (SUCCESS,)

    # -- Admin -----------------------------------------------------------------------------------------

    def admin(self, command: Command) -> tuple:
        dword_10, dword_11 = command.dwords[:2]
        match command.opcode:
            case 0x02:
                return self.log(dword_10 & 0xFF)
            case 0x06:
                return self.identify(dword_10 & 0xFF, dword_10 >> 16, command.nsid)
            case 0x09 if dword_10 & 0xFF == 0x07:
                return SUCCESS, dword_11
            case 0x09 if dword_10 & 0xFF in (0x0B, 0x0F):
                return (SUCCESS,)
            case 0x0A if dword_10 & 0xFF == 0x07:
                return SUCCESS, 0
            case 0x0A if dword_10 & 0xFF == 0x0B:
                return SUCCESS, 0
            case 0x09 | 0x0A:
                return (INVALID_FIELD,)
            case 0x08:
                return SUCCESS, 1  # not aborted
            case 0x18:
                return (SUCCESS,)
            case 0x84:
                return (self.media.sanitize(command.nsid, dword_10, dword_11),)
        return (self.media.prohibits() or INVALID_OPCODE,)

    def log(self, page: int) -> tuple:
        if page == 0x05:
            effects = bytearray(4096)
            for at in [4 * opcode for opcode in ADMIN_OPCODES] + [1024 + 4 * opcode for opcode in IO_OPCODES]:
                effects[at] = 1
            return SUCCESS, 0, bytes(effects)
        if page == 0x81:
            return SUCCESS, 0, self.media.log()
        if page == 0x01:
            return SUCCESS, 0, bytes(64)
        if page == 0x02:
            # 300 K, all of the spare blocks left.
            return SUCCESS, 0, (b"\0" + (300).to_bytes(2, "little") + bytes([100, 10])).ljust(512, b"\0")
        if page == 0x03:
            return SUCCESS, 0, (b"\x01" + bytes(7) + b"1.0     ").ljust(512, b"\0")
        return (INVALID_LOG,)

    def identify(self, structure: int, first: int, nsid: int) -> tuple:
        namespaces, page = self.media.namespaces, bytearray(4096)
        if structure in (0x00, 0x11):
            if nsid in namespaces:
                self.namespace_page(page, nsid)
            elif structure == 0x11:
                return (INVALID_NAMESPACE,)
        elif structure == 0x01:
            self.controller_page(page)
        elif structure in (0x02, 0x10):
            put(page, 0, b"".join(each.to_bytes(4, "little") for each in namespaces if each > nsid))
        elif structure == 0x03 and nsid in namespaces:
            put(page, 0, bytes([2, 16, 0, 0]) + nguid(nsid) + bytes([4, 1, 0, 0, 0]))
        elif structure in (0x12, 0x13):
            put(page, 0, struct.pack("<HH", 1, CONTROLLER) if first <= CONTROLLER else b"")
        else:
            return (INVALID_NAMESPACE if structure == 0x03 else INVALID_FIELD,)
        return SUCCESS, 0, bytes(page)

    def controller_page(self, page: bytearray) -> None:
        put(page, 4, SERIAL.ljust(20) + MODEL.ljust(40) + b"1.0     ")
        page[77] = 5  # MDTS: 128 KiB
        put(page, 78, struct.pack("<HI", CONTROLLER, VERSION))
        put(page, 92, struct.pack("<I", 1 << 8))  # OAES: the kernel asks for events where there is one
        page[111] = 1  # an I/O controller
        put(page, 256, struct.pack("<H", 1 << 1 | 1 << 3))  # OACS: Format, namespace management
        page[261] = 1 << 1  # the log of supported commands
        put(page, 320, struct.pack("<H", 10))  # KAS: by the second
        put(page, 328, struct.pack("<I", 0b111))  # SANICAP
        page[512], page[513] = 0x66, 0x44
        put(page, 514, struct.pack("<HI", 128, max(self.media.namespaces)))
        put(page, 520, struct.pack("<H", RESERVATIONS))
        page[524] = 0b0100 | (0b0010 if self.format_reaches_all else 0)
        page[525] = 1  # VWC
        put(page, 536, struct.pack("<I", 1 | 1 << 20))  # SGLS
        put(page, 768, NQN)
        put(page, 1792, struct.pack("<II", (64 + 4096) // 16, 1))  # a page in a capsule

    def namespace_page(self, page: bytearray, nsid: int) -> None:
        put(page, 0, struct.pack("<QQQ", *[self.media.namespaces[nsid].blocks] * 3))
        page[32] = 0x80 | (50 if nsid in self.formatting else 0)  # FPI
        page[33] = 1  # a deallocated block reads zeroes
        put(page, 104, nguid(nsid))
        page[130] = 9  # blocks of 512 bytes

    def format(self, connection: Connection, command: Command) -> tuple | None:
        """Erases, and is answered when that is done."""
        dword_10, everything = command.dwords[0], set(self.media.namespaces)
        action = SECURE_ERASE_ACTION.get(dword_10 >> 9 & 7)
        named = everything if command.nsid == 0xFFFF_FFFF else {command.nsid} & everything
        if self.media.prohibits():
            return (self.media.prohibits(),)
        if not named:
            return (INVALID_NAMESPACE,)
        if dword_10 & 0x31FF:
            return (INVALID_FORMAT,)
        if dword_10 >> 9 & 7 > 2:
            return (INVALID_FIELD,)
        reached = everything if self.format_reaches_all else named
        self.formatting |= reached

        def work() -> None:
            time.sleep(FORMAT_SECONDS)
            with self.media.lock:
                for nsid in reached if action else ():
                    self.media.namespaces[nsid].erase(action, b"\0", range(0))
                self.formatting -= reached
                self.end(connection, command, SUCCESS)

        threading.Thread(target=work, daemon=True).start()
        return None


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--sanitize-seconds", type=float, default=2.0)
    arguments.add_argument("--lie", choices=LIES)
    arguments.add_argument("--format-reaches-all", action="store_true")
    arguments.add_argument("--reserved", type=int)
    asked = arguments.parse_args()
    media = Media(asked.folder, asked.sanitize_seconds, asked.lie)
    drive = Drive(asked.folder, media, asked.format_reaches_all, asked.reserved)
    listener = socket.create_server(("127.0.0.1", PORT))
    while True:
        peer, _ = listener.accept()
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=Connection(peer, drive.execute).serve, daemon=True).start()


main()
