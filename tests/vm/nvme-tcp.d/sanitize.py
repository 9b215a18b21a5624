#!/usr/bin/env python3
"""The Sanitize command of another program: sanitize.py NODE DWORD-10 (linux/nvme_ioctl.h)."""

import fcntl
import struct
import sys

NVME_IOCTL_ADMIN_CMD = 0xC0484E41

node, dword_10 = sys.argv[1], int(sys.argv[2], 0)
command = bytearray(72)
command[0] = 0x84
struct.pack_into("<I", command, 40, dword_10)
struct.pack_into("<I", command, 64, 120_000)
with open(node, "rb") as device:
    status = fcntl.ioctl(device, NVME_IOCTL_ADMIN_CMD, command)
sys.exit(f"status {status:03x}" if status else 0)
