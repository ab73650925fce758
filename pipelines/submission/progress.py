"""A job's log as it comes: on a terminal its progress lines become a bar, and all else goes by."""

import json
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn


class JobProgress:
    """Shows the text of a log; pipelines.labelling writes the lines that a bar is made of."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._rest = ""
        self._bar = Progress(
            SpinnerColumn(),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None, visible=False, told="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._rest:
            self._print(self._rest)
        self._bar.stop()

    def show(self, text: str) -> None:
        """What the log has more than before."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            progress = _progress_in(line) if self._console.is_terminal else None
            if progress is None:
                self._print(line)
            else:
                self._bar.update(self._task, visible=True, **progress)

    def _print(self, line: str) -> None:
        # As it is: the log may have been coloured, and brackets in it are no markup.
        self._console.out(line, highlight=False)


def _progress_in(line: str) -> dict[str, Any] | None:
    try:
        told = json.loads(line)
        left = timedelta(seconds=told["eta_seconds"])
        pace = f"{told['images_per_second']:.1f} images/s, {left} left, {told['failed']} failed"
        return {"completed": told["done"], "total": told["to_do"], "told": pace}
    except (ValueError, TypeError, KeyError):
        return None
