"""What a submission is called: so that the same night, submitted twice, is known for the same."""

import hashlib
import re
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from itertools import count


def base_name(job: Sequence[str]) -> str:
    """The job, its run (or its output, or else the day), and a digest of what it writes to.

    A run is one of its table, so both make the name; without a run, all flags do.
    """
    name, *flags = job
    run, target = _value_of("run", flags), _value_of("table", flags) or _value_of("output", flags)
    if run and target:
        return f"{name}-{_plain(run)}-{_digest([target])}"
    what = target.rstrip("/").rpartition("/")[2] if target and name != "label" else None
    return f"{name}-{_plain(what or datetime.now(UTC).date().isoformat())}-{_digest(flags)}"


def next_name(base: str, taken: Collection[str]) -> str:
    """`base`, or with the number of the attempt where it was submitted before."""
    names = (base if number == 1 else f"{base}-{number}" for number in count(1))
    return next(name for name in names if name not in taken)


def is_attempt(name: str, base: str) -> bool:
    """Whether a name was made by `next_name` of `base`."""
    return re.fullmatch(rf"{re.escape(base)}(-\d+)?", name) is not None


def _value_of(flag: str, flags: Sequence[str]) -> str | None:
    """What is given for a flag, as `--flag VALUE` or `--flag=VALUE`."""
    for word, following in zip(flags, [*flags[1:], ""], strict=True):
        if word == f"--{flag}":
            return following
        if word.startswith(f"--{flag}="):
            return word.partition("=")[2]
    return None


def _plain(text: str) -> str:
    """Letters, digits and the marks that need no quoting in an address."""
    return re.sub(r"[^\w.-]+", "_", text, flags=re.ASCII)


def _digest(words: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:8]
