"""A runtime that is asked about as many canvases at once as fit into memory."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import NamedTuple

from pipelines.detectors.contract import ModelFailedError
from pipelines.detectors.runtimes.contract import Found, Runtime
from pipelines.photos import ErrorKind, ImageError, Pixels

BATCHES_BEFORE_DOUBLING = 16
"""Of a size that fits, until twice the size is tried again; one pass is lost if it still fails."""


class BatchSize:
    """How many images pass through the model at once: fewer when memory runs out, later more."""

    def __init__(self, largest: int) -> None:
        self.current = largest
        self._largest = largest
        self._successes = 0

    def halve(self, failed: int) -> None:
        """After a batch of `failed` images, more than one, did not fit."""
        self.current = failed // 2
        self._successes = 0

    def count_success(self) -> None:
        self._successes += 1
        if self._successes % BATCHES_BEFORE_DOUBLING == 0:
            self.current = min(2 * self.current, self._largest)


class _Pass(NamedTuple):
    """A pass through the model that has begun."""

    canvases: int
    """How many."""
    finish: Callable[[], Sequence[Found | None]]


class FittingModel:
    """Looks at canvases.

    Where a batch does not fit it is halved, down to one image, which is then `out_of_memory`.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.batch_size = BatchSize(runtime.batch_size)

    def begin(self, canvases: Pixels) -> Callable[[], list[Found | ImageError]]:
        """Begin to look at (B, H, W, 3) canvases.

        Returns:
            What waits for what is on each, or why that cannot be known.

        Raises:
            ModelFailedError: as what is returned may.
        """
        first = None
        if len(canvases) <= self.batch_size.current:
            with suppress(MemoryError):
                first = self._begin(canvases)
        return partial(self._finish, canvases, first)

    def _finish(self, canvases: Pixels, begun: _Pass | None) -> list[Found | ImageError]:
        found: list[Found | ImageError] = []
        while len(found) < len(canvases):
            rest = canvases[len(found) :]
            count = begun.canvases if begun else min(self.batch_size.current, len(rest))
            try:
                with _failures_told():
                    found += map(_finite, (begun or self._begin(rest)).finish())
                self.batch_size.count_success()
            # The next try comes after this block: the error holds the tensors of the failed one.
            except MemoryError as error:
                if count > 1:
                    self.batch_size.halve(count)
                else:
                    found.append(ImageError(ErrorKind.OUT_OF_MEMORY, f"in the model: {error}"))
            begun = None
        return found

    def _begin(self, canvases: Pixels) -> _Pass:
        batch = canvases[: self.batch_size.current]
        with _failures_told():
            return _Pass(len(batch), self._runtime.begin(batch))


@contextmanager
def _failures_told() -> Iterator[None]:
    try:
        yield
    except (MemoryError, ModelFailedError):
        raise
    except Exception as error:  # each runtime has its own
        raise ModelFailedError(f"{type(error).__name__}: {error}") from error


def _finite(found: Found | None) -> Found | ImageError:
    if found is None:
        return ImageError(ErrorKind.NOT_FINITE, "the model gave NaN or infinity")
    return found
