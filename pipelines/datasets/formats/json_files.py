"""JSON files, and in words what is wrong with one of their entries."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from pipelines.errors import InputError
from pipelines.storage import Folder, read_bytes

MALFORMED = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError)
"""What an entry raises that lacks a key, or whose values are not of the format's types."""


def read_json(uri: str) -> Any:
    """Raises InputError: the file cannot be read, or is not JSON."""
    body = read_bytes(uri)
    try:
        return json.loads(body)
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{uri} is not JSON: line {line} is not UTF-8 text, so save the file again with that "
            "encoding"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{uri} is not JSON: {error}; if the file is cut short, export or copy it again"
        ) from error


def json_in(source: str) -> str:
    """The source if it is a .json file, or else the only one in the folder.

    Raises:
        InputError: there is none, or there are several.
    """
    if source.endswith(".json"):
        return source
    folder = Folder(source)
    found = [name for name in folder.list() if "/" not in name and name.endswith(".json")]
    if len(found) != 1:
        raise InputError(f"{source} holds {len(found)} .json files: give one of them as --source")
    return folder.uri_of(found[0])


def entries(uri: str, kind: str, found: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """(where, entry): by its id, or by its place in the list where it has none."""
    for index, entry in enumerate(found):
        entry_id = entry.get("id") if isinstance(entry, dict) else None
        name = f"{kind} {entry_id}" if entry_id is not None else f"{kind}s[{index}]"
        yield f"{uri}: {name}", entry


def told(error: Exception) -> str:
    """What one of MALFORMED means, for somebody who reads the file."""
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]!r}"
    if isinstance(error, TypeError):
        return f"its values are of other types ({error})"
    return str(error)


def score_of(value: Any) -> float | None:
    """Raises ValueError: it is none between 0 and 1."""
    if value is None:
        return None
    score = float(value)
    if not 0 <= score <= 1:
        raise ValueError(f"{value} is no score between 0 and 1")
    return score
