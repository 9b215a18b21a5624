"""docs/peers.md, made of the outcomes of one run of scripts/vm/peers."""

import re
import statistics
from dataclasses import dataclass

from cases import MEMORY_BYTES_MAX, NOT_MADE, SIZE, TOOL_SECONDS_MAX, TOOLS, Case, Tool
from disk import BLOCK, MIB

UNITS = {"b": 1, "byte": 1, "bytes": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "kb": 1000, "mb": 10**6,
         "sector": 512, "sectors": 512, "block": 4096, "blocks": 4096}
NUMBER = r"(?:0x[0-9a-f]+|\d[\d,]*(?:\.\d+)?)"
WITH_UNIT = re.compile(rf"({NUMBER})\s*({'|'.join(sorted(UNITS, key=len, reverse=True))})\b", re.I)
AFTER_WORD = re.compile(rf"\b(offset|bytes?|at|from|sectors?|blocks?|lba)\b[\s:=#]*({NUMBER})", re.I)
NOT_A_PLACE = re.compile(r"[\d.,]+ ?[kMG]?i?B/s|\d{4}[/-]\d\d[/-]\d\d|\d+:\d\d(?::\d\d)?")
ROUGH = 4 * MIB
EXACT, NEAR, NO = "where", "near", ""


def numbers(text: str) -> set[int]:
    """What it names, in bytes: numbers with a unit, and those behind a word for a place, which may be sectors."""
    # A line with a percentage is progress.
    text = NOT_A_PLACE.sub(" ", "\n".join(line for line in text.splitlines() if "%" not in line))
    found = {int(value(number) * UNITS[unit.lower()]) for number, unit in WITH_UNIT.findall(text)}
    for word, number in AFTER_WORD.findall(text):
        units = (512, BLOCK) if word.lower()[0] in "sbl" and not word.lower().startswith("byte") else (1,)
        found |= {int(value(number) * unit) for unit in units}
    return found


def value(number: str) -> float:
    return int(number, 16) if number.lower().startswith("0x") else float(number.replace(",", ""))


@dataclass
class Outcome:
    fault: str
    tool: str
    command: str
    code: int
    seconds: float
    output: str
    acted: bool
    changed: int
    size: int
    old_before: int
    old_after: int
    torn_blocks: int
    places: list[tuple[int, int]]

    @classmethod
    def unmade(cls, fault: str, tool: str, why: str) -> "Outcome":
        return cls(fault, tool, "", -1, 0, why, False, 0, 0, 0, 0, 0, [])

    @property
    def refused(self) -> bool:
        """A mounted file system writes a little beside it."""
        return self.code != 0 and self.changed < MIB and self.old_before == self.old_after

    @property
    def void(self) -> bool:
        return not self.refused and not self.acted

    @property
    def false_success(self) -> bool:
        return not self.void and self.code == 0 and self.old_after > 0

    @property
    def wiped(self) -> bool:
        return not self.void and self.code == 0 and self.old_after == 0

    @property
    def where(self) -> str:
        return self.place_in(self.output)

    def place_in(self, text: str) -> str:
        """Whether it names a place of the fault, or one within 4 MiB before it; the rounded size is no place."""
        named = {number for number in numbers(text) if abs(number - self.size) > self.size // 20}
        if any(start <= number <= end for number in named for start, end in self.places):
            return EXACT
        if any(start - ROUGH <= number < start for number in named for start, _ in self.places):
            return NEAR
        return NO

    @property
    def exit(self) -> str:
        return "no end" if self.code in (124, 137) else f"exit {self.code}"

    @property
    def left(self) -> str:
        return f"{amount(self.old_after)} left" if self.old_after else "nothing left"

    def cell(self) -> str:
        if not self.command:
            return "not made"
        if self.refused:
            return f"{self.exit}: refused"
        if self.void:
            return f"void, {self.exit}: {self.left}"
        if self.wiped:
            return "wiped"
        if self.false_success:
            return f"**exit 0: {self.left}**"
        return f"{self.exit}: {self.left}" + (f", {self.where}" if self.where else "")


def amount(size: int) -> str:
    for unit, bytes_in_unit in (("MiB", MIB), ("KiB", 1024)):
        if size >= bytes_in_unit:
            return f"{size / bytes_in_unit:.4g} {unit}"
    return f"{size} B"


def rows(head: list[str], body: list[list[str]]) -> str:
    return "\n".join([f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in body)])


Found = dict[tuple[str, str], Outcome]


def table(cases: list[Case], tools: list[Tool], found: Found) -> str:
    body = [[case.title, *(found[case.name, tool.name].cell() for tool in tools)] for case in cases]
    return rows(["fault", *(tool.name for tool in tools)], body)


def complaints(cases: list[Case], tools: list[Tool], found: Found) -> list[str]:
    """What makes a run worthless, and false successes of efface that it could have detected."""
    wrong = []
    for case in cases:
        each = [found[case.name, tool.name] for tool in tools]
        if all(one.void or one.refused for one in each):
            wrong.append(f"{case.name}: the fault acted on no tool")
        for one in each:
            if not one.command:
                wrong.append(f"{case.name}, {one.tool}: {one.output}")
            elif not one.old_before:
                wrong.append(f"{case.name}, {one.tool}: there was no old data before")
            undetected = one.tool.startswith("efface") and one.false_success and one.tool not in case.undetected_by
            if undetected or (case.name == "healthy" and not one.wiped):
                wrong.append(f"{case.name}, {one.tool}: {one.cell()}")
    return wrong


def seconds(name: str, cases: list[Case], found: Found) -> float:
    """The median of all disks of 64 MiB that the tool did not refuse: a busy host makes single figures useless."""
    each = [found[case.name, name] for case in cases if case.size == SIZE]
    return statistics.median(one.seconds for one in each if not one.refused)


def totals(cases: list[Case], tools: list[Tool], found: Found) -> str:
    body = []
    for tool in tools:
        each = [found[case.name, tool.name] for case in cases if case.name != "healthy"]
        failed = [one for one in each if one.code != 0 and not one.refused and not one.void]
        lost = [one for one in failed if one.old_after]
        body.append([
            tool.name, str(sum(one.wiped for one in each)), f"{sum(one.false_success for one in each)}",
            str(len(lost)), f"{sum(one.where == EXACT for one in lost)} ({sum(one.where == NEAR for one in lost)})",
            str(len(failed) - len(lost)), str(sum(one.refused for one in each)), str(sum(one.void for one in each)),
            f"{seconds(tool.name, cases, found):.1f}",
        ])
    return rows(["tool", "wiped", "**false success**", "fails, old data left", "of these it says where (near)",
                 "fails, nothing left", "refused", "void", "median seconds"], body)


def lost_rows(cases: list[Case], tools: list[Tool], found: Found) -> str:
    """Where efface does not do what it should, or a peer does more."""
    peers = [tool.name for tool in tools if not tool.name.startswith("efface")]
    lines: dict[tuple[str, str], list[str]] = {}
    for case in cases:
        for name in ("efface", "efface full"):
            one = found[case.name, name]
            done = "false success" if one.false_success else "refuses" if one.refused else f"ends with {one.exit}"
            beside = {peer: found[case.name, peer] for peer in peers}
            wiped = ", ".join(peer for peer, other in beside.items() if (other.code, other.old_after) == (0, 0))
            less = ", ".join(f"{peer} ({other.exit}: {other.left})" for peer, other in beside.items()
                             if other.code and other.old_after < one.old_after and not one.refused)
            if one.false_success or (one.code and (wiped or less)):
                better = f"; nothing left and exit 0: {wiped}" if wiped else ""
                better += f"; less is left by {less}" if less else ""
                lines.setdefault((case.title, f"{done}, {one.left}{better}"), []).append(name)
    text = [f"- {title}, {' and '.join(names)}: {what}." for (title, what), names in lines.items()]
    own = seconds("efface", cases, found)
    each = {peer: seconds(peer, cases, found) for peer in peers}
    faster = ", ".join(f"{peer} {median:.1f} s" for peer, median in each.items() if median < own)
    if faster:
        text.append(f"- Time, median of the disks of 64 MiB: efface {own:.1f} s; {faster}. efface reads the disk before "
                    "and after, nwipe after. The VM is emulated; for speeds see [benches/RESULTS.md](../benches/RESULTS.md).")
    return "\n".join(text)


def quotes(cases: list[Case], tools: list[Tool], found: Found) -> str:
    """The line of each output that names the place, or the last one, where a tool failed with old data left."""
    body = []
    for case in cases:
        for tool in tools:
            one = found[case.name, tool.name]
            if one.code == 0 or one.void or one.refused or not one.old_after:
                continue
            body.append([case.title, tool.name, one.where or "no", f"`{telling_line(one)}`"])
    return rows(["fault", "tool", "says where", "the line that does, otherwise the last error or line"], body)


def telling_line(one: Outcome) -> str:
    lines = [" ".join(line.split()) for line in one.output.splitlines() if line.strip()] or ["(nothing)"]
    telling = [line for line in lines if one.where and one.place_in(line) == one.where]
    line = (telling or [line for line in lines if " error: " in line] or lines)[-1]
    line = re.sub(r"^\[[\d/]+ [\d:]+\] *", "", line)
    return (line[:150] + "…" if len(line) > 150 else line).replace("|", "\\|").replace("`", "'")


def page(cases: list[Case], tools: list[Tool], found: Found, versions: dict[str, str]) -> str:
    named_commands = [[tool.name, f"`{tool.command.format(device='DEVICE', size='BYTES')}`"] for tool in TOOLS]
    commands = rows(["tool", "command"], named_commands)
    how = rows(["fault", "how it is made"], [[case.title, case.how] for case in cases])
    unmade = rows(["fault", "why not"], [list(each) for each in NOT_MADE])
    named = "; ".join(f"{name}: {version}" for name, version in versions.items())
    voids = sum(one.void for one in found.values())
    return f"""# The same sick disks, wiped by efface and by its peers
Made by `scripts/vm/peers` in one run: each cell is one wipe of a new disk in a VM. The disks are served to it over NBD, full of
old data, and a fault is a part of the disk or a layer of the guest's kernel over it. When the tool has ended the power of
the disk is cut, and a reader that shares nothing with efface counts the old data on the medium, beneath the fault and all
caches. The old data are units of 16 bytes, a magic and the unit's number, so that parts of blocks are found too.

- **exit 0: N left**: false success. The tool ends with exit code 0, and N of the old data are on the medium.
- *wiped*: exit code 0, and no byte of old data is left.
- *exit N: … left*: the tool fails. With *where* its output names an offset (bytes, sectors or blocks) inside the fault or
  what survives, with *near* one at most 4 MiB before.
- *refused*: it fails, less than 1 MiB has been written, and all old data is left. *no end*: stopped after {TOOL_SECONDS_MAX} s.
- *void*: the fault did not act on this tool (it sent nothing that the fault affects); it counts as no success, whatever is left.

{table(cases, tools, found)}

{totals(cases, tools, found)}

{voids} cells are void. The disk without a fault is not in these sums.

## What efface loses
{lost_rows(cases, tools, found)}

## What the tools say where they fail
Failures with old data left, and whether the output names the place.

{quotes(cases, tools, found)}

## How the faults are made
All disks have 64 MiB, unless it says otherwise; QEMU's scsi-hd, with a write cache, unless it says virtio. The spot is 64 KiB at
41 MiB + 12 KiB. A case counts only if its fault acted: the disk counts each time that it dropped, tore or failed something, or
held it in its cache; a mount, a cache or another process is looked for again when the tool has ended.

{how}

Not made:

{unmade}

## Commands and versions
{commands}

`dd` is Cinder's command for a volume on a device that takes O_DIRECT (cinder.volume.volume_utils.copy_volume): it has no
conv=fsync. BYTES is the size of the device. Each tool runs in a memory cgroup of {amount(MEMORY_BYTES_MAX)}, so that one that
reads back through the page cache asks the disk, as on a drive larger than the memory.

Versions, as they report themselves: {named}. All but efface are Debian's packages.
"""
