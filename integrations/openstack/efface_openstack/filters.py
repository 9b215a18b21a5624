"""`python3 -m efface_openstack.filters`: the rootwrap filters, made from the command lines themselves.

rootwrap compares argument by argument, each with a pattern that has to fit all of it; a pattern may hold
no comma, and the number of arguments is fixed. So there is a line for each number of options that a
command can have, and each of them may be any option of that command: a line for each combination would be
thousands. What is given twice, or together with what excludes it, is refused by efface itself.
rootwrap puts `$` behind the pattern, which matches before a newline at the end: so each ends with `\\Z`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from .command import PREFIX, VERSION, DestroyKey, Order, Wipe, jobs, rename, split_snapshot, verify, version

HEX = "[0-9a-f]"
FIELDS = [f"{HEX}{{{digits}}}" for digits in (8, 4, 4, 4, 12)]
UUID = "-".join(FIELDS)
# device-mapper doubles the hyphens of a name.
MAPPED_UUID = "--".join(FIELDS)
# Never an option.
GROUP = "[A-Za-z0-9][A-Za-z0-9_.+-]*"
# With its hyphens doubled, so that the name of a volume cannot pass for a part of the group's.
MAPPED_GROUP = "[A-Za-z0-9]([A-Za-z0-9_.+]|--)*"
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


@dataclass(frozen=True)
class Names:
    """As cinder.conf has them."""

    binary: str = "efface"
    volume_name_template: str = "volume-%s"
    snapshot_name_template: str = "snapshot-%s"

    def order(self) -> dict[str, Any]:
        mapped = [each.replace("-", "--") % MAPPED_UUID for each in (*self._templates(), PREFIX + "%s")]
        return {
            "binary": re.escape(self.binary),
            "device": f"/dev/mapper/{MAPPED_GROUP}-({'|'.join(mapped)})",
            "volume_id": UUID,
            "tenant": WORD,
            "ionice": "(idle|best-effort:[0-7])",
            "wait": TO_9999,
        }

    def logical_volume(self) -> str:
        return f"({'|'.join(each % UUID for each in self._templates())})"

    def snapshot(self) -> str:
        return self._templates()[1] % UUID

    def _templates(self) -> tuple[str, str]:
        """As patterns; what begins with `snapshot` cinder mangles, since LVM reserves it."""
        volume, snapshot = (
            each.replace(".", r"\.").replace("+", r"\+")
            for each in (self.volume_name_template, self.snapshot_name_template)
        )
        return volume, f"_{snapshot}" if snapshot.startswith("snapshot") else snapshot


ACCEPTED = {"shared_fs": True, "unseen": True, "copies": True, "sign": True, "ledger": True}


def wipes(order: dict[str, Any]) -> Iterator[list[str]]:
    written = Wipe(
        **order, method="(zero|shred|random)", verify="(none|standard|high|full)", slots=TO_99, yields=None
    )
    # What was discarded and not read shows nothing.
    discarded = replace(written, method="discard", verify="(standard|high|full)")
    paced: list[dict[str, Any]] = [
        {"metrics": True},
        {"yields": LOSS, "yield_min": LOWEST},
        {"rate": RATE},
        ACCEPTED,
    ]
    yield from shapes(
        written,
        *paced,
        {"size": f"{TO_9999}MiB"},
        {"skip_zeroes": True},
        {"offload": True},
    )
    yield from shapes(discarded, *paced)


def shapes(order: Order, *optional: dict[str, Any]) -> Iterator[list[str]]:
    """The command line with any number of its options."""
    options = [word for fields in optional for word in replace(order, **fields).options()]
    for number in range(len(options) + 1):
        yield order.words() + [f"({'|'.join(options)})"] * number


def lines(names: Names) -> list[str]:
    order = names.order()
    key = DestroyKey(**order, external_key=WORD)
    check = verify(order["binary"], order["device"], order["ionice"], CERTIFICATE)
    listed = [jobs(order["binary"]), jobs(order["binary"], metrics=True)]
    others = [check, *listed, version(order["binary"])]
    commands = [*wipes(order), *shapes(key, ACCEPTED), *others]
    split = split_snapshot(GROUP, names.snapshot())
    renamed = rename(GROUP, names.logical_volume(), PREFIX + UUID)
    return [
        *(f"efface_{number}: {rule(names.binary, words)}" for number, words in enumerate(commands, 1)),
        f"efface_split: {rule(split[0], split)}",
        f"efface_rename: {rule(renamed[0], renamed)}",
    ]


def rule(program: str, words: list[str]) -> str:
    # What is no pattern, and has dots.
    literal = re.compile("|".join(re.escape(each) for each in ("job.", ".prom", VERSION)))
    patterns = (literal.sub(lambda found: re.escape(found[0]), word) + r"\Z" for word in words)
    return f"RegExpFilter, {program}, root, {', '.join(patterns)}"


def text(names: Names = Names()) -> str:
    return HEADER + "".join(f"{line}\n" for line in lines(names))


def name_template(value: str) -> str:
    """No pattern, and no device outside of the mapper's folder, can come of it."""
    if not re.fullmatch(r"(?![.-])[A-Za-z0-9_.+-]*%s[A-Za-z0-9_.+-]*", value):
        raise argparse.ArgumentTypeError("it has to have letters, digits, _ . + - and one %s")
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description="Prints the rootwrap filters of cinder's driver.")
    defaults = Names()
    for name in ("volume_name_template", "snapshot_name_template"):
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=name_template, default=getattr(defaults, name))
    parser.add_argument("--binary", default=defaults.binary, help="as efface_binary")
    print(text(Names(**vars(parser.parse_args()))), end="")


if __name__ == "__main__":
    main()
