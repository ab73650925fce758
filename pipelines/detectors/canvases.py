"""Canvases that are filled again and again: fresh pages cost more than the pixels on them."""

import queue
import threading
from collections.abc import Callable

from pipelines.photos import Pixels

_AT_ONCE = 4
"""Batches: two that the model has, one that it gets next, and one that is being decoded."""


class CanvasPool:
    """Lends arrays of canvases to batches, and so keeps decoding from running far ahead."""

    def __init__(self, new_canvases: Callable[[], Pixels]) -> None:
        self._free: queue.SimpleQueue[Pixels] = queue.SimpleQueue()
        for _ in range(_AT_ONCE):
            self._free.put(new_canvases())

    def lend(self) -> "Canvases":
        """For one batch; whoever asks first for its rows is first to get them."""
        return Canvases(self)

    def take(self) -> Pixels:
        """Waits until some are free."""
        return self._free.get()

    def put_back(self, canvases: Pixels) -> None:
        self._free.put(canvases)


class Canvases:
    """Those of one batch, from when they are first needed until they are given back."""

    def __init__(self, pool: CanvasPool) -> None:
        self._pool = pool
        self._taking = threading.Lock()
        self._rows: Pixels | None = None

    def rows(self) -> Pixels:
        """(B, H, W, 3) uint8."""
        with self._taking:
            if self._rows is None:
                self._rows = self._pool.take()
            return self._rows

    def give_back(self) -> None:
        """Once nobody reads or writes them any more; a second time is nothing."""
        if self._rows is not None:
            self._pool.put_back(self._rows)
            self._rows = None
