"""What lies in S3: keys listed in order, and many ranges of them side by side.

S3 answers with a thousand keys at a time, in order, and tells neither how many there are nor where
they end. It can begin after any key, though. So what is still to come is cut at keys that are
guessed from those seen so far, and the ranges between are listed at the same time; a guess beyond
the last key costs one request, a bad one only makes ranges of unequal length.
"""

import asyncio
import marshal
import os
import tempfile
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from pipelines.storage import s3
from pipelines.storage.pages import Page, page_of
from pipelines.storage.s3 import TABLE_RETRIES, RetryPolicy
from pipelines.storage.uris import split_s3_uri

ABREAST = 32
"""Ranges of keys that are listed at the same time; S3 stands thousands of requests a second."""
_PAGES_IN_MEMORY = 64
"""Answers that came before their turn; further ones wait on the disk."""
_WORTH_A_RANGE = 2
"""So many answers must be expected of a range, for it to be cut in two."""
_UNORDERED = "--x-s3"
"""How directory buckets end, which list in no order and cannot begin after a key."""


class S3Object(NamedTuple):
    """An object as a listing has it. An S3 Inventory may lack what is None here."""

    key: str
    etag: str | None
    size_bytes: int
    last_modified: datetime | None

    @property
    def is_folder_marker(self) -> bool:
        """Some consoles make a folder by writing an empty object whose key ends in `/`."""
        return self.size_bytes == 0 and self.key.endswith("/")


def is_listed_in_order(uri: str) -> bool:
    """Whether S3 lists this bucket sorted by key, and can begin after one."""
    return not split_s3_uri(uri)[0].endswith(_UNORDERED)


def list_objects(
    uri: str, policy: RetryPolicy = TABLE_RETRIES, after: str = "", abreast: int = ABREAST
) -> Iterator[S3Object]:
    """Every object whose URI begins so, sorted by key.

    A page that did not come whole is asked for again, so that no key is lost or given twice.

    Args:
        after: the key to begin after.
        abreast: ranges of keys to be listed at the same time, once it is known that there is more
            than one page.

    Raises:
        STORAGE_ERRORS: there is no such bucket, or it may not or cannot be listed.
    """
    bucket, prefix = split_s3_uri(uri)
    sweep = _Sweep(bucket, prefix, policy, after, abreast if is_listed_in_order(uri) else 1)
    try:
        while page := s3.call(sweep.next_page, policy):
            for key, etag, size, time in page:
                yield S3Object(key, etag, size, datetime.fromisoformat(time))
    finally:
        # Without waiting: whoever lets go of a listing may be in the event loop itself.
        s3.connection_for(policy).loop.call_soon_threadsafe(sweep.stop)


@dataclass
class _Range:
    """The keys after `after` up to `until`; None: to the last one of the prefix."""

    after: str
    until: str | None
    token: str | None = None
    """S3's own, to go on with."""
    first: str = ""
    """The first key that was found in it."""
    num_pages: int = 0
    is_asked: bool = False
    is_done: bool = False
    waiting: deque[Page | int] = field(default_factory=deque)
    """What was listed and not taken yet: pages, or where they lie on the disk."""


class _Sweep:
    """Lists ranges side by side, and gives their pages in order. For S3's event loop alone."""

    def __init__(
        self, bucket: str, prefix: str, policy: RetryPolicy, after: str, abreast: int
    ) -> None:
        self._bucket, self._prefix, self._policy, self._abreast = bucket, prefix, policy, abreast
        self._ranges = [_Range(after, None)]
        self._scale = _Scale(prefix)
        self._shelf = _Shelf()
        self._requests: set[asyncio.Task[None]] = set()
        self._answered = asyncio.Event()
        self._error: BaseException | None = None
        self._pages_taken = 0

    async def next_page(self) -> Page | None:
        """None after the last one; a page is never empty."""
        while self._ranges:
            first = self._ranges[0]
            if first.waiting:
                self._pages_taken += 1
                return self._shelf.take(first.waiting.popleft())
            if first.is_done:
                del self._ranges[0]
                continue
            self._ask()
            self._answered.clear()
            await self._answered.wait()
            if self._error:
                raise self._error
        return None

    def stop(self) -> None:
        self._ranges.clear()  # so that an answer that is just being heard asks for no more
        for request in self._requests:
            request.cancel()
        self._shelf.close()

    def _ask(self) -> None:
        """For as many pages as may be asked for at a time."""
        # Many want to know the first one only.
        abreast = self._abreast if self._pages_taken else 1
        while len(self._requests) < abreast and (chosen := self._idle_range() or self._cut()):
            chosen.is_asked = True
            request = asyncio.create_task(self._list(chosen))
            self._requests.add(request)
            request.add_done_callback(self._hear)

    def _hear(self, request: asyncio.Task[None]) -> None:
        self._requests.discard(request)
        if request.cancelled():
            return
        self._error = self._error or request.exception()
        if self._pages_taken and not self._error:
            self._ask()
        self._answered.set()

    def _idle_range(self) -> _Range | None:
        idle = (part for part in self._ranges if not part.is_asked and not part.is_done)
        return next(idle, None)

    def _cut(self) -> _Range | None:
        """The second half of the range that most is left of, if that is worth it."""
        going = [part for part in self._ranges if part.num_pages and not part.is_done]
        longest = max(going, key=self._pages_left, default=None)
        if longest is None or self._pages_left(longest) < _WORTH_A_RANGE:
            return None
        middle = self._scale.between(longest.after, longest.until)
        if middle is None:
            return None
        half = _Range(middle, longest.until)
        longest.until = middle
        self._ranges.insert(self._ranges.index(longest) + 1, half)
        return half

    def _pages_left(self, part: _Range) -> float:
        return part.num_pages * self._scale.share(part.first, part.after, part.until)

    async def _list(self, part: _Range) -> None:
        send = partial(_list_page, self._bucket, self._prefix, part.after, part.token)
        page, part.token = await s3.connection_for(self._policy).request(send, self._policy)
        part.is_asked = False
        if self._abreast > 1 and page and page[0][0] <= part.after:
            raise OSError(f"{self._bucket}: S3 listed {page[0][0]!r}, asked for what comes after")
        # The range may have been cut since it was asked for.
        inside = (
            page if part.until is None else page[: bisect_right(page, (part.until, "\U0010ffff"))]
        )
        part.is_done = part.token is None or len(inside) < len(page)
        if inside:
            part.first, part.after = part.first or inside[0][0], inside[-1][0]
            part.num_pages += 1
            self._scale.see(inside)
            part.waiting.append(self._shelf.put(inside, ahead=part is not self._ranges[0]))


class _Scale:
    """Keys as numbers, in the letters that were seen so far, to tell how far apart they are."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._letters: list[str] = []

    def see(self, page: Page) -> None:
        self._letters = sorted({*self._letters, *"".join(key for key, *_ in page)})

    def between(self, after: str, until: str | None) -> str | None:
        """A key half way; None where there is none."""
        common, numbers = self._numbers(after, until)
        middle = common + self._key(sum(numbers) // 2)
        is_between = after < middle and (until is None or middle < until)
        return middle if is_between else None

    def share(self, first: str, after: str, until: str | None) -> float:
        """What comes after, in multiples of what came before."""
        _, (begin, here, end) = self._numbers(first, after, until)
        return (end - here) / max(here - begin, 1)

    def _numbers(self, *keys: str | None) -> tuple[str, list[int]]:
        """What the keys have in common, and the rest as numbers; None: beyond the last one."""
        known = [key for key in keys if key is not None]
        common = _common(known) if len(known) == len(keys) else self._prefix
        return common, [self._number(key, len(common)) for key in keys]

    def _number(self, key: str | None, skip: int) -> int:
        base = len(self._letters) + 1
        if key is None:
            return int(base**_DIGITS)
        number = 0
        for letter in key[skip : skip + _DIGITS].ljust(_DIGITS, "\0"):
            # 0 stands for the end of a key, which sorts before all that is longer.
            number = number * base + bisect_right(self._letters, letter)
        return number

    def _key(self, number: int) -> str:
        base = len(self._letters) + 1
        digits = [number // base**place % base for place in range(_DIGITS - 1, -1, -1)]
        end = digits.index(0) if 0 in digits else _DIGITS
        return "".join(self._letters[digit - 1] for digit in digits[:end])


def _common(keys: Sequence[str]) -> str:
    """What all of them begin with: the least and the greatest one tell."""
    least, greatest = min(keys), max(keys)
    pairs = enumerate(zip(least, greatest, strict=False))
    return least[: next((place for place, (a, b) in pairs if a != b), len(least))]


_DIGITS = 40
"""Letters of a key, after what is common, that count for how far it is from another."""


class _Shelf:
    """Pages that came before their turn: some in memory, the others in a file without a name."""

    def __init__(self) -> None:
        self._in_memory = 0
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed by its owner)

    def put(self, page: Page, *, ahead: bool) -> Page | int:
        if not ahead or self._in_memory < _PAGES_IN_MEMORY:
            self._in_memory += 1
            return page
        place = self._file.seek(0, os.SEEK_END)
        self._file.write(marshal.dumps(list(page)))
        return place

    def take(self, page: Page | int) -> Page:
        if not isinstance(page, int):
            self._in_memory -= 1
            return page
        self._file.seek(page)
        taken: Page = marshal.load(self._file)
        return taken

    def close(self) -> None:
        self._file.close()


async def _list_page(
    bucket: str, prefix: str, after: str, token: str | None, client: Any
) -> tuple[Page, str | None]:
    """One answer, and the token to go on with; None at the end."""
    begin = {"ContinuationToken": token} if token else {"StartAfter": after} if after else {}
    answer = await client.list_objects_v2(Bucket=bucket, Prefix=prefix, EncodingType="url", **begin)
    return page_of(answer), answer.get("NextContinuationToken")
