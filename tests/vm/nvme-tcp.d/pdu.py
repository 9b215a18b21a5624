"""NVMe/TCP: the PDUs of one connection, without digests (NVMe TCP Transport Specification 1.0)."""

import socket
import struct
import threading
from collections.abc import Callable

IC_REQUEST, IC_RESPONSE, COMMAND, RESPONSE, H2C_DATA, C2H_DATA, R2T = 0, 1, 4, 5, 6, 7, 9
HEADER = struct.Struct("<BBBBI")  # type, flags, length of the header, offset of the data, length of all
DATA = struct.Struct("<HHII4x")  # command, tag of the transfer, offset, length
LAST = 1 << 2
BY_TRANSPORT = 0x5A  # a type of SGL descriptor: the data are not in the capsule
H2C_BYTES_MAX = 16384  # small, so that large writes come in several PDUs
FABRICS = 0x7F  # the opcode of all of Fabrics' own commands, whose data are in the capsule
WRITES_TO_DRIVE = 0b01  # the direction in the lowest bits of an opcode


class Command:
    """A submission queue entry."""

    def __init__(self, entry: bytes) -> None:
        self.entry = entry
        self.opcode, self.flags, self.id, self.nsid = struct.unpack_from("<BBHI", entry)
        self.length, self.descriptor = struct.unpack_from("<I3xB", entry, 32)
        self.dwords = struct.unpack_from("<6I", entry, 40)  # dword 10 and those after it


class Transfer:
    """Data of a write that is asked for."""

    def __init__(self, command: Command) -> None:
        self.command, self.data, self.missing = command, bytearray(command.length), command.length


class Connection:
    """One queue of a host. `execute` gets the connection, a command and its data, and answers it, now or later."""

    def __init__(self, peer: socket.socket, execute: Callable[["Connection", Command, bytes], None]) -> None:
        self.peer = peer
        self.execute = execute
        self.queue = 0
        self.transfers: dict[int, Transfer] = {}
        self.sending = threading.Lock()

    def serve(self) -> None:
        """Until the host has gone."""
        try:
            self.initialize()
            while True:
                self.receive()
        except (EOFError, OSError):
            pass
        finally:
            self.peer.close()

    def initialize(self) -> None:
        kind, _, body = self.read()
        if kind != IC_REQUEST or body[:2] != bytes(2):
            raise EOFError
        self.send(IC_RESPONSE, struct.pack("<HBBI", 0, 0, 0, H2C_BYTES_MAX) + bytes(112))

    def receive(self) -> None:
        kind, header, body = self.read()
        if kind == COMMAND:
            self.begin(Command(body[:64]), body[header - HEADER.size:])
        elif kind == H2C_DATA:
            _, tag, offset, length = DATA.unpack_from(body)
            self.take(tag, offset, body[header - HEADER.size:][:length])
        else:
            raise EOFError

    def begin(self, command: Command, in_capsule: bytes) -> None:
        writes = command.opcode != FABRICS and command.opcode & 3 == WRITES_TO_DRIVE
        if writes and command.descriptor == BY_TRANSPORT and command.length:
            self.transfers[command.id] = Transfer(command)
            self.send(R2T, DATA.pack(command.id, command.id, 0, command.length))
        else:
            self.execute(self, command, in_capsule[:command.length])

    def take(self, tag: int, offset: int, data: bytes) -> None:
        transfer = self.transfers[tag]
        transfer.data[offset:offset + len(data)] = data
        transfer.missing -= len(data)
        if transfer.missing == 0:
            del self.transfers[tag]
            self.execute(self, transfer.command, bytes(transfer.data))

    def answer(self, command: Command, status: int, result: int = 0, data: bytes = b"") -> None:
        """The completion, after as much data as the host has space for."""
        try:
            if data and status == 0:
                data = data[:command.length].ljust(command.length, b"\0")
                self.send(C2H_DATA, DATA.pack(command.id, 0, 0, len(data)), data, LAST)
            entry = struct.pack("<QHHHH", result, 0, self.queue, command.id, status << 1)
            self.send(RESPONSE, entry)
        except OSError:
            pass  # The host has gone.

    def send(self, kind: int, body: bytes, data: bytes = b"", flags: int = 0) -> None:
        header = HEADER.size + len(body)
        begin = HEADER.pack(kind, flags, header, header if data else 0, header + len(data))
        with self.sending:
            self.peer.sendall(begin + body + data)

    def read(self) -> tuple[int, int, bytes]:
        """The type, the length of the header, and what follows the common part of it."""
        kind, _, header, _, length = HEADER.unpack(self.exactly(HEADER.size))
        return kind, header, self.exactly(length - HEADER.size)

    def exactly(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            part = self.peer.recv(length - len(data))
            if not part:
                raise EOFError
            data += part
        return bytes(data)
