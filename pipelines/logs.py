"""The log of a job: lines for people, or one JSON object each for machines that collect them.

YOLOX_RAY_LOG=json python -m jobs.label …        yolox-ray submit --json_log -- label …
"""

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from io import TextIOBase
from typing import Any, TextIO

VARIABLE, JSON = "YOLOX_RAY_LOG", "json"


def are_json() -> bool:
    """Whether each line of this process's log is to be a JSON object."""
    return os.environ.get(VARIABLE) == JSON


class JsonLines(TextIOBase):
    """Text that goes on line by line, each a JSON object with the time and, once known, the run.

    What is an object already keeps its fields; its `run` is what later lines are said to be of.
    """

    _run: Mapping[str, Any] = {}
    """Of all streams of this process."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._rest = stream, ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in filter(str.strip, lines):
            self._stream.write(f"{self._as_object(line)}\n")
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()

    def writable(self) -> bool:
        return True

    def _as_object(self, line: str) -> str:
        fields = _fields_of(line) or {"message": line.rstrip()}
        if "run" in fields:
            JsonLines._run = {"run": fields["run"]}
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        return json.dumps({"time": time, **self._run, **fields}, ensure_ascii=False)


def _fields_of(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except json.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
