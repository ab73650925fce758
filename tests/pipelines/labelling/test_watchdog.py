import threading
from collections.abc import Iterator

import pytest

from pipelines.labelling.watchdog import watched


def _never(seconds: float) -> None:
    pytest.fail("nothing was late")


def test_all_items_come_in_their_order() -> None:
    assert list(watched(range(1000), _never)) == list(range(1000))
    assert list(watched([], _never)) == []


def test_an_error_of_the_iterator_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("no space")

    seen = []
    with pytest.raises(OSError, match="no space"):  # noqa: PT012 - what was seen before matters
        for item in watched(items(), _never):
            seen.append(item)
    assert seen == [1]


class _StalledError(Exception):
    pass


def test_an_iterator_that_blocks_is_left_when_the_tick_says_so() -> None:
    release = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        release.wait(60)

    waited: list[float] = []

    def tick(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 5:
            raise _StalledError

    with pytest.raises(_StalledError):
        list(watched(items(), tick, tick_s=0.05))
    release.set()
    assert waited == sorted(waited)
    assert waited[-1] >= 0.2
