"""How far a listing and a run are: a live line on a terminal, JSON lines elsewhere."""

import json
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from pipelines import logs
from pipelines.labelling.writing import Part
from pipelines.tables import Ledger

FIRST_LINE_AFTER_S, MOST_BETWEEN_LINES_S = 5.0, 60.0


class _Rhythm:
    """When a line is due: soon, then ever more seldom, down to one a minute."""

    def __init__(self) -> None:
        self._gap_s = FIRST_LINE_AFTER_S
        self._due_at = time.monotonic() + self._gap_s
        self.has_begun = False

    def is_due(self) -> bool:
        now = time.monotonic()
        if now < self._due_at:
            return False
        self.has_begun = True
        self._gap_s = min(2 * self._gap_s, MOST_BETWEEN_LINES_S)
        self._due_at = now + self._gap_s
        return True


class ListingProgress:
    """Shows a listing that grows, whose end nobody knows."""

    def __init__(self) -> None:
        self._started, self._rhythm = time.monotonic(), _Rhythm()
        self._before: int | None = None
        console = Console(stderr=True)
        self._terminal = console.is_terminal
        self._status = console.status("listing")

    def __enter__(self) -> Self:
        if self._terminal:
            self._status.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._status.stop()

    def update(self, images: int, left_out: int, at: str) -> None:
        # Those of an earlier start that this one goes on with were not listed now.
        self._before = images if self._before is None else self._before
        seconds = max(time.monotonic() - self._started, 1e-9)
        pace = (images - self._before) / seconds
        if self._terminal:
            told = f"{images:,} images listed, {pace:,.0f} a second, {left_out:,} left out: {at}"
            self._status.update(escape(told))
        elif self._rhythm.is_due():
            _print({"listed": images, "left_out": left_out, "per_second": round(pace), "at": at})


class LabellingProgress:
    """Shows a ledger that fills up: images done of total, images/s, time left, failures.

    Where log lines are to be JSON (pipelines.logs), each part has one.
    """

    def __init__(self, run: str, start: Ledger) -> None:
        self._run, self._each_part = run, logs.are_json()
        self._ledger, self._done_before = start, start.done
        self._started, self._rhythm = time.monotonic(), _Rhythm()
        console = Console(stderr=True)
        self._terminal = console.is_terminal
        self._bar = Progress(
            SpinnerColumn(),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not self._terminal,
        )
        self._task = self._bar.add_task("", total=start.to_do, completed=start.done, speed="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()
        if self._rhythm.has_begun:  # whoever has seen some sees how it ended
            self._print_line()

    def update(self, ledger: Ledger, part: Part) -> None:
        self._ledger = ledger
        images_per_second = self._images_per_second(ledger)
        left_s = (ledger.to_do - ledger.done) / images_per_second if images_per_second else 0.0
        self._bar.update(
            self._task,
            completed=ledger.done,
            speed=f"{images_per_second:.1f} images/s, {timedelta(seconds=round(left_s))} left, "
            f"{ledger.failed} failed",
        )
        if self._each_part:
            _print({"run": self._run, **part.told()})
        if not self._terminal and self._rhythm.is_due():
            self._print_line()

    def _print_line(self) -> None:
        ledger, pace = self._ledger, self._images_per_second(self._ledger)
        line = {
            "run": self._run,
            "done": ledger.done,
            "to_do": ledger.to_do,
            "failed": ledger.failed,
            "images_per_second": round(pace, 1),
            "eta_seconds": round((ledger.to_do - ledger.done) / pace) if pace else None,
        }
        _print(line)

    def say(self, line: str) -> None:
        """A line between what is shown of the progress."""
        self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _images_per_second(self, ledger: Ledger) -> float:
        return (ledger.done - self._done_before) / max(time.monotonic() - self._started, 1e-9)


def _print(line: Mapping[str, object]) -> None:
    print(json.dumps(line), file=sys.stderr, flush=True)
