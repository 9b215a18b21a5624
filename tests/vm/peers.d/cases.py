"""The sick disks and the tools of scripts/vm/peers: data alone. What stands here is printed in docs/peers.md."""

from collections.abc import Callable
from dataclasses import dataclass, field

from disk import BLOCK, MIB, Disk, Faults, Ranges

SIZE = 64 * MIB
SPOT: Ranges = ((41 * MIB + 3 * BLOCK, 41 * MIB + 19 * BLOCK),)
ONE_BLOCK: Ranges = ((150 * MIB + 5 * BLOCK, 150 * MIB + 6 * BLOCK),)
HALF = 32 * MIB
TOOL_SECONDS_MAX = 300
MEMORY_BYTES_MAX = 48 * MIB
HEALTHY = Faults()


@dataclass(frozen=True)
class Tool:
    name: str
    command: str


TOOLS = [
    Tool("efface", "efface wipe {device} --yes"),
    Tool("efface full", "efface wipe {device} --yes --verify full"),
    Tool("dd", "dd if=/dev/zero of={device} count={size} bs=1M iflag=count_bytes oflag=direct"),
    Tool("dd fsync", "dd if=/dev/zero of={device} count={size} bs=1M iflag=count_bytes oflag=direct conv=fsync"),
    Tool("shred -z", "shred -n0 -z {device}"),
    Tool("shred -n3", "shred -n3 {device}"),
    Tool("scrub", "scrub -f -S -p fillzero {device}"),
    Tool("nwipe", "nwipe --autonuke --nogui --nowait --noblank --method=zero --verify=last --logfile=/dev/null {device}"),
    Tool("blkdiscard", "blkdiscard {device}"),
    Tool("blkdiscard -z", "blkdiscard -z {device}"),
]


@dataclass(frozen=True)
class Plan:
    """A disk to make."""

    faults: Faults = HEALTHY
    size: int = SIZE
    old: bool = True  # full of old data before it is plugged in; otherwise zeroes
    bus: str = "scsi"


def counted(disks: list[Disk], _: list[bytes]) -> bool:
    return any(disk.acted for disk in disks)


def always(_: list[Disk], __: list[bytes]) -> bool:
    """The condition stands before the wipe: the set-up or the check ends the case otherwise."""
    return True


def passed_over(disks: list[Disk], media: list[bytes]) -> bool:
    """The spot was never written, and the rest was."""
    spot = slice(*SPOT[0])
    return disks[0].changed >= SIZE - (spot.stop - spot.start) and b"OLD DATA" in media[0][spot]


@dataclass(frozen=True)
class Case:
    """A fault. Commands run in the guest; {disk} and the like are nodes, {pattern} one full of old data."""

    name: str
    title: str
    how: str
    disks: dict[str, Plan] = field(default_factory=lambda: {"disk": Plan()})
    device: str = "{disk}"
    size: int = SIZE
    setup: tuple[str, ...] = ()
    midway: tuple[str, ...] = ()  # once the first disk is slow
    check: str = ""  # when the tool has ended: whether the condition still stands
    after: tuple[str, ...] = ()  # before the power is cut
    acted: Callable[[list[Disk], list[bytes]], bool] = counted
    undetected_by: tuple[str, ...] = ()  # which ways of reading back cannot see it, of efface
    places: Ranges = ()  # what a tool has to name to say where it failed; otherwise a place of what survives


def sick(**faults: object) -> dict[str, Plan]:
    return {"disk": Plan(Faults(**faults))}


NO_WRITEBACK = "echo 0 >/proc/sys/vm/dirty_writeback_centisecs"
HOLD = (
    "rm -f /tmp/holder; setsid bash -c 'exec 7<>{disk}; echo $$ >/tmp/holder; exec sleep 1000' "
    ">/dev/null 2>&1 </dev/null & wait_for test -s /tmp/holder"
)
LET_GO = "kill $(cat /tmp/holder); wait_for eval '! kill -0 $(cat /tmp/holder) 2>/dev/null'; sync"
HELD = "kill -0 $(cat /tmp/holder)"

FAULTS = [
    Case("healthy", "none (control)", "a disk without a fault", acted=always),
    Case("drop", "drops writes: 64 KiB",
         "confirms writes, zeroes and discards to 16 blocks and does not do them", sick(drop=SPOT), places=SPOT),
    Case("drop-one", "drops writes: 4 KiB of 256 MiB",
         "the same with one block of a disk of 256 MiB, which efface's default reads back in samples",
         {"disk": Plan(Faults(drop=ONE_BLOCK), 256 * MIB)}, size=256 * MIB, places=ONE_BLOCK, undetected_by=("efface",)),
    Case("flakey", "drops writes: 64 KiB, by the kernel",
         "dm-flakey with `drop_writes` over these 16 blocks, dm-linear around them; below it a healthy disk",
         device="/dev/mapper/flakey", places=SPOT, acted=passed_over,
         setup=("dmsetup create flakey <<TABLE\n"
                f"0 {SPOT[0][0] // 512} linear {{disk}} 0\n"
                f"{SPOT[0][0] // 512} 128 flakey {{disk}} {SPOT[0][0] // 512} 0 600 1 drop_writes\n"
                f"{SPOT[0][1] // 512} {(SIZE - SPOT[0][1]) // 512} linear {{disk}} {SPOT[0][1] // 512}\n"
                "TABLE",)),
    Case("tear", "tears writes: 16 blocks",
         "of each of 16 blocks the first 2 KiB are written and the last 2 KiB are not; all is confirmed",
         sick(tear=SPOT), places=SPOT),
    Case("bad-write", "bad sectors on write: 64 KiB",
         "a write to 16 blocks fails with EIO, what comes before them in the same request is done; they can be read",
         sick(bad_write=SPOT), places=SPOT),
    Case("bad-read", "bad sectors on read: 64 KiB",
         "16 blocks take writes, and every read of them fails with EIO", sick(bad_read=SPOT), places=SPOT),
    Case("flush-fails", "flush fails",
         "a volatile cache of 8 MiB for writes, zeroes and discards, first in, first out; "
         "every flush fails with EIO and writes nothing back; "
         "the power is cut when the tool has ended", sick(cache_bytes=8 * MIB, flush="fails")),
    Case("cache", "volatile cache, power cut at the end",
         "the same cache with flushes that work: what a tool has not flushed is lost",
         sick(cache_bytes=8 * MIB)),
    Case("flush-lies", "flush confirmed and not done",
         "the same cache; flushes are confirmed and nothing is written back, reads show what is in the cache",
         sick(cache_bytes=8 * MIB, flush="lies"), undetected_by=("efface", "efface full")),
    Case("retire", "retired sectors: 64 KiB",
         "writes to 16 blocks go to spare sectors, which reads show from then on; the old sectors keep what they held "
         "(as a drive does that replaces sectors)", sick(retire=SPOT), undetected_by=("efface", "efface full")),
    Case("discard-ignored", "discard confirmed and not done",
         "discards (UNMAP) are confirmed and ignored; writes and zeroes are done", sick(ignore_discard=True)),
    Case("vanish", "vanishes midway (SCSI)",
         "the write that reaches 32 MiB fails, all that follows too, and QEMU's device_del unplugs the disk",
         sick(vanish_at=HALF), places=((HALF, HALF + MIB),)),
    Case("vanish-virtio", "vanishes midway (virtio)", "the same on virtio-blk",
         {"disk": Plan(Faults(vanish_at=HALF), bus="virtio")}, places=((HALF, HALF + MIB),)),
    Case("shrink", "shrinks midway to 48 MiB",
         "dm-linear over a disk that is slow from 32 MiB on; then `dmsetup load` and `resume` with a table of 48 MiB",
         sick(slow_at=HALF), device="/dev/mapper/volume", places=((48 * MIB, 49 * MIB),),
         setup=("echo '0 {sectors} linear {disk} 0' | dmsetup create volume",),
         midway=("dmsetup suspend volume; echo '0 98304 linear {disk} 0' | dmsetup load volume; dmsetup resume volume",)),
    Case("pool-full", "fills up (thin pool)",
         "an LVM thin volume of 64 MiB with old data in its last 8 MiB, in a pool of 16 MiB with errorwhenfull",
         {"disk": Plan(size=96 * MIB, old=False)}, device="/dev/vg/thin", acted=always,
         places=((8 * MIB, 9 * MIB),),
         setup=("lvm vgcreate -qq vg {disk}",
                "lvm lvcreate -qq --yes --type thin-pool --chunksize 64K --size 16M --name pool vg",
                "lvm lvchange -qq --errorwhenfull y vg/pool",
                "lvm lvcreate -qq --yes --thin --virtualsize 64M --name thin vg/pool",
                "dd if={pattern} of=/dev/vg/thin bs=1M skip=56 seek=56 count=8 oflag=direct conv=nocreat,fsync")),
    Case("mounted", "busy: mounted",
         "ext4 on the disk is mounted; a file of 32 MiB of old data is on the disk and, rewritten, dirty in the page "
         "cache; after the tool it is unmounted",
         {"disk": Plan(old=False)}, acted=always, check="grep -q ' /mnt ' /proc/mounts",
         setup=("mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 {disk}",
                "mount -t ext4 {disk} /mnt", NO_WRITEBACK,
                "dd if={pattern} of=/mnt/file bs=1M count=32 conv=fsync",
                "dd if={pattern} of=/mnt/file bs=1M count=32 conv=notrunc",
                "[ $(awk '/^Dirty/ {{ print $2 }}' /proc/meminfo) -gt 30000 ]"),
         after=("umount /mnt", "sync")),
    Case("held-open", "busy: held open, idle",
         "another process has the disk open for writing, and does not write", acted=always,
         setup=(HOLD,), check=HELD, after=(LET_GO,)),
    Case("page-cache", "busy: dirty pages of the disk below",
         "dm-linear over the disk is wiped; another process has the disk below open, with 8 MiB of old data dirty in "
         "the page cache of that disk; after the tool it closes the disk",
         device="/dev/mapper/volume", acted=always, check=HELD, after=(LET_GO,),
         disks={"disk": Plan(), "beside": Plan(old=False, size=MIB)},
         setup=("echo '0 {sectors} linear {disk} 0' | dmsetup create volume", NO_WRITEBACK, HOLD,
                "dd if={pattern} of={disk} bs=1M skip=16 seek=16 count=8 conv=notrunc,nocreat",
                "[ $(awk '/^Dirty/ {{ print $2 }}' /proc/meminfo) -gt 7000 ]")),
    Case("writecache", "a writeback cache below",
         "an LVM volume of 32 MiB full of old data gets a dm-writecache of 32 MiB on a second disk; at the end both "
         "disks are read",
         {"slow": Plan(size=48 * MIB, old=False), "fast": Plan(size=48 * MIB, old=False)},
         device="/dev/vg/lv", size=32 * MIB, acted=always, check="dmsetup table vg-lv | grep -q writecache",
         setup=("lvm vgcreate -qq vg {slow} {fast}",
                "lvm lvcreate -qq --yes --wipesignatures n --zero n --size 32M --name lv vg {slow}",
                "dd if={pattern} of=/dev/vg/lv bs=1M count=32 oflag=direct conv=nocreat,fsync",
                "lvm lvcreate -qq --yes --wipesignatures n --zero n --activate n --size 32M --name cache vg {fast}",
                "lvm lvconvert -qq --yes --type writecache --cachevol cache vg/lv")),
]

NOT_MADE = [
    ("areas outside the addresses (HPA, DCO)", "QEMU's disks have none"),
    ("spare flash, wear levelling",
     "QEMU has no drive with a flash translation layer; *retired sectors* looks the same from outside"),
    ("dm-dust", "Debian's kernel has no such module; *bad sectors* are made by the disk itself"),
    ("medium errors with the sense data of a drive", "QEMU gives every failure of a served disk as one sense code; "
     "the `medium-errors` test has them with scsi_debug, for efface alone"),
    ("a physical disk that shrinks", "QEMU cuts off the image with it, and nothing is left to read; dm-linear stands for it"),
]
