"""Wait for what comes next, and for no longer than that makes sense."""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

TICK_S = 0.5


def watched(
    items: Iterable[Item], tick: Callable[[float], None], *, tick_s: float = TICK_S
) -> Iterator[Item]:
    """The items, iterated in a thread of their own, so that this one can be interrupted.

    Args:
        items: what may block for long.
        tick: called every `tick_s` with the seconds since the last item; what it raises ends the
            iteration.
    """
    arrived: queue.SimpleQueue[tuple[Item] | BaseException | None] = queue.SimpleQueue()

    def pump() -> None:
        try:
            for item in items:
                arrived.put((item,))
            arrived.put(None)
        except BaseException as error:
            arrived.put(error)

    threading.Thread(target=pump, name="watched", daemon=True).start()
    last = time.monotonic()
    while True:
        try:
            found = arrived.get(timeout=tick_s)
        except queue.Empty:
            tick(time.monotonic() - last)
            continue
        if found is None:
            return
        if isinstance(found, BaseException):
            raise found
        last = time.monotonic()
        yield found[0]
