"""`python3 -m efface_openstack.filters`: the rootwrap filters, made from the very command lines.

rootwrap compares argument by argument, each with a pattern that has to fit all of it; a pattern may hold
no comma, and the number of arguments is fixed. So there is a line for each shape that a command can have.
"""

from __future__ import annotations

from itertools import product

from .command import DestroyKey, Wipe, jobs, split_snapshot

HEX = "[0-9a-f]"
FIELDS = [f"{HEX}{{{digits}}}" for digits in (8, 4, 4, 4, 12)]
UUID = "-".join(FIELDS)
# device-mapper doubles the hyphens of a name.
MAPPED_UUID = "--".join(FIELDS)
GROUP = "[A-Za-z0-9_.+-]+"
# No dot and so no `..`: the folders belong to root, and nothing leads out of them.
FOLDER = "/var/lib/efface(/[A-Za-z0-9_-]+)*"
WORD = "[A-Za-z0-9_-]+"
NUMBER = "[0-9]+"

HEADER = """\
# What the cinder service may have root do with efface, and nothing else.
# Made by: python3 -m efface_openstack.filters
[Filters]
"""


def lines() -> list[str]:
    order = {
        "device": f"/dev/mapper/{GROUP}-(volume|_snapshot)--{MAPPED_UUID}",
        "volume_id": UUID,
        "tenant": WORD,
        "ionice": "(idle|best-effort:[0-7]|realtime:[0-7])",
        "wait": NUMBER,
        "certificate_dir": FOLDER,
    }
    wipes = [
        Wipe(
            **order,
            method="(zero|shred|random|discard)",
            verify="(none|standard|high|full)",
            slots=NUMBER,
            state_dir=FOLDER,
            yields=yields,
            rate=rate,
            size=size,
            prefer_key=prefer_key,
        ).words()
        for (yields, rate), (size, prefer_key) in product(
            ((True, None), (False, None), (False, "[0-9]+[KMGT]iB/s")),
            ((None, False), (NUMBER, False), (None, True)),
        )
    ]
    commands = [
        *wipes,
        DestroyKey(**order, external_key=WORD).words(),
        jobs("efface", FOLDER),
    ]
    split = split_snapshot(GROUP, f"_snapshot-{UUID}")
    return [
        *(f"efface_{number}: {rule(words)}" for number, words in enumerate(commands, 1)),
        f"efface_split: {rule(split)}",
    ]


def rule(words: list[str]) -> str:
    return f"RegExpFilter, {words[0]}, root, {', '.join(words)}"


def text() -> str:
    return HEADER + "".join(f"{line}\n" for line in lines())


if __name__ == "__main__":
    print(text(), end="")
