"""Splits of a source, whose names vary."""

import re
from collections.abc import Collection, Sequence

from pipelines.errors import InputError

_USUAL = re.compile(r"(train|val|test)(?:id|idation|ing)?(?:20\d\d)?")
"""`train`, `training` and `train2017`, `val`, `valid` and `validation2014`, and so on."""


def chosen(source: str, wanted: Sequence[str], known: Collection[str]) -> list[str]:
    """The names that a source has for the splits that are wanted; without any its only one.

    `val` and `valid` are the same, and so are `train` and `Train2017`.

    Raises:
        InputError: there is no such split, or none is named and there are several.
    """
    names = sorted(known)
    if not wanted and len(names) != 1:
        raise InputError(f"{source} has the splits {names}: name one with --split, or several")
    return [_named(source, split, names) for split in wanted] or names


def _named(source: str, split: str, names: Sequence[str]) -> str:
    alike = [name for name in names if _canonical(name) == _canonical(split)]
    if split in names:
        return split
    if len(alike) != 1:
        raise InputError(f"split={split!r}: {source} does not name it, it has {list(names)}")
    return alike[0]


def _canonical(name: str) -> str:
    usual = _USUAL.fullmatch(name.lower())
    return usual[1] if usual else name.lower()
