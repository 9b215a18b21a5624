"""`python3 -m efface_openstack.filters`: the rootwrap filters, made from the command lines themselves.

rootwrap compares argument by argument, each with a pattern that has to fit all of it; a pattern may hold
no comma, and the number of arguments is fixed. So there is a line for each number of options that a
command can have, and each of them may be any option of that command: a line for each combination would be
thousands. What is given twice, or together with what excludes it, is refused by efface itself.
rootwrap puts `$` behind the pattern, which matches before a newline at the end: so each ends with `\\Z`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from .command import VERSION, DestroyKey, Order, Wipe, jobs, rename, split_snapshot, verify, version

HEX = "[0-9a-f]"
FIELDS = [f"{HEX}{{{digits}}}" for digits in (8, 4, 4, 4, 12)]
UUID = "-".join(FIELDS)
# device-mapper doubles the hyphens of a name.
MAPPED_UUID = "--".join(FIELDS)
# Never an option.
GROUP = "[A-Za-z0-9][A-Za-z0-9_.+-]*"
# With its hyphens doubled, so that the name of a volume cannot pass for a part of the group's.
MAPPED_GROUP = "[A-Za-z0-9]([A-Za-z0-9_.+]|--)*"
# PREFIX of deferred.py, as device-mapper has it.
DELETED = "efface--deleted"
WORD = "(?!.{256})[A-Za-z0-9_][A-Za-z0-9_-]*"
TO_99 = "[1-9][0-9]?"
TO_9999 = "[1-9][0-9]?[0-9]?[0-9]?"
RATE = f"{TO_9999}[KMGT]iB/s"
LOWEST = f"(0|{RATE})"
LOSS = "[1-5]?[0-9]%"

# In the folder of the certificates, as efface names them.
CERTIFICATE = r"efface-[A-Za-z0-9_.-]+\.json"

HEADER = """\
# What the cinder service may have root do with efface, and nothing else.
# Made by: python3 -m efface_openstack.filters
[Filters]
"""


ORDER: dict[str, Any] = {
    "device": f"/dev/mapper/{MAPPED_GROUP}-(volume|_snapshot|{DELETED})--{MAPPED_UUID}",
    "volume_id": UUID,
    "tenant": WORD,
    "ionice": "(idle|best-effort:[0-7])",
    "wait": TO_9999,
}


FORCED = {"shared_fs": True, "unseen": True, "copies": True}


def wipes() -> Iterator[list[str]]:
    written = Wipe(
        **ORDER, method="(zero|shred|random)", verify="(none|standard|high|full)", slots=TO_99, yields=None
    )
    # What was discarded and not read shows nothing.
    discarded = replace(written, method="discard", verify="(standard|high|full)")
    paced: list[dict[str, Any]] = [{"yields": LOSS, "yield_min": LOWEST}, {"rate": RATE}, FORCED]
    yield from shapes(
        written,
        *paced,
        {"size": f"{TO_9999}MiB"},
        {"prefer_key": True},
        {"skip_zeroes": True},
        {"offload": True},
    )
    yield from shapes(discarded, *paced)


def shapes(order: Order, *optional: dict[str, Any]) -> Iterator[list[str]]:
    """The command line with any number of its options."""
    options = [word for fields in optional for word in replace(order, **fields).options()]
    for number in range(len(options) + 1):
        yield order.words() + [f"({'|'.join(options)})"] * number


def lines() -> list[str]:
    key = DestroyKey(**ORDER, external_key=WORD)
    check = verify("efface", ORDER["device"], ORDER["ionice"], CERTIFICATE)
    commands = [*wipes(), *shapes(key, FORCED), check, jobs("efface"), version("efface")]
    split = split_snapshot(GROUP, f"_snapshot-{UUID}")
    renamed = rename(GROUP, f"(volume|_snapshot)-{UUID}", f"efface-deleted-{UUID}")
    return [
        *(f"efface_{number}: {rule(words)}" for number, words in enumerate(commands, 1)),
        f"efface_split: {rule(split)}",
        f"efface_rename: {rule(renamed)}",
    ]


def rule(words: list[str]) -> str:
    patterns = (word.replace("job.", r"job\.").replace(VERSION, re.escape(VERSION)) + r"\Z" for word in words)
    return f"RegExpFilter, {words[0]}, root, {', '.join(patterns)}"


def text() -> str:
    return HEADER + "".join(f"{line}\n" for line in lines())


if __name__ == "__main__":
    print(text(), end="")
