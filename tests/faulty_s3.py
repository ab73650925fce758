"""A proxy in front of the tests' S3 server that fails as told: `FaultyS3` and its faults.

    faulty_s3.add(Rule(slow_down, method="GET", key="photos/*", share=0.3))
    faulty_s3.add(Rule(lost_answer, method="PUT", times=1))

A fault is any coroutine function of (request, forward): `request` is what the client sent, and
`forward()` passes it on to the real server and gives its answer.
"""

import asyncio
import random
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Literal, Self
from urllib.parse import unquote

from aiohttp import ClientSession, DummyCookieJar, TCPConnector, web
from yarl import URL


@dataclass(frozen=True)
class Request:
    """What a client asked of S3."""

    method: str
    bucket: str
    key: str
    """Empty for what is asked of a bucket, such as a listing."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    raw_path: str
    """As it was sent, query included."""

    @property
    def is_listing(self) -> bool:
        return "list-type" in self.query

    @property
    def access_key(self) -> str:
        """The id of the credentials that signed it."""
        signed_by = re.search(r"Credential=([^/]+)/", self.headers.get("Authorization", ""))
        return signed_by[1] if signed_by else ""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    sent: Literal["nothing", "half", "all"] = "all"
    """Of it, before the connection is reset."""
    silence_s: float = 0.0
    """Before the second half of the body."""


Forward = Callable[[], Awaitable[Answer]]
Fault = Callable[[Request, Forward], Coroutine[Any, Any, Answer]]


@dataclass(frozen=True)
class Rule:
    """Which requests meet a fault. Of several rules that match, the first one added strikes."""

    fault: Fault
    method: str = "*"
    key: str = "*"
    """A pattern as of a shell, whose `*` also matches `/`."""
    times: int | None = None
    """How many requests meet it; None: all."""
    share: float = 1.0
    """Of the requests that match, drawn by chance."""
    when: Callable[[Request], bool] = lambda request: True

    def matches(self, request: Request) -> bool:
        return (
            self.method in ("*", request.method)
            and fnmatchcase(request.key, self.key)
            and self.when(request)
        )


def refused(status: int, code: str) -> Fault:
    """S3's own way to say no."""

    async def fault(request: Request, forward: Forward) -> Answer:
        return _error(status, code)

    return fault


slow_down = refused(503, "SlowDown")
internal_error = refused(500, "InternalError")
access_denied = refused(403, "AccessDenied")


_BROKEN = Answer(0, sent="nothing")


async def reset(request: Request, forward: Forward) -> Answer:
    """The connection breaks, and the request was not heard."""
    return _BROKEN


async def lost_answer(request: Request, forward: Forward) -> Answer:
    """The request is carried out, and the connection breaks before its answer."""
    await forward()
    return _BROKEN


async def truncated(request: Request, forward: Forward) -> Answer:
    """The connection breaks in the middle of the body."""
    return replace(await forward(), sent="half")


def stall(seconds: float) -> Fault:
    """Silence, and then the answer."""

    async def fault(request: Request, forward: Forward) -> Answer:
        await asyncio.sleep(seconds)
        return await forward()

    return fault


def stall_half_way(seconds: float) -> Fault:
    """Half of the answer, silence, and then the rest."""

    async def fault(request: Request, forward: Forward) -> Answer:
        return replace(await forward(), silence_s=seconds)

    return fault


def before(action: Callable[[Request], None]) -> Fault:
    """No fault: something happens before the request is carried out."""

    async def fault(request: Request, forward: Forward) -> Answer:
        await asyncio.to_thread(action, request)
        return await forward()

    return fault


def after(action: Callable[[Request], None]) -> Fault:
    """No fault: something happens after the request was carried out, before it is answered."""

    async def fault(request: Request, forward: Forward) -> Answer:
        answer = await forward()
        await asyncio.to_thread(action, request)
        return answer

    return fault


class Hold:
    """A fault that holds requests until they are released, and then carries them out."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        """Set as soon as a request is held."""
        self._released = threading.Event()

    def release(self) -> None:
        self._released.set()

    async def __call__(self, request: Request, forward: Forward) -> Answer:
        self.reached.set()
        while not self._released.is_set():
            await asyncio.sleep(0.01)
        return await forward()


class FaultyS3:
    """An S3 endpoint at `url` that passes everything on to `server`, but for what its rules say.

    A client that gives up does not stop what S3 has begun: a request that is stalled or held is
    carried out later, though nobody waits for its answer, unless `clear` comes first.
    """

    def __init__(self, server: str) -> None:
        self._server = server
        self._loop = asyncio.new_event_loop()
        self._striking: set[asyncio.Task[web.StreamResponse]] = set()
        self._rules: list[Rule] = []
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.clear()

    def __enter__(self) -> Self:
        self._thread.start()
        self.url = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(self, *error: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def add(self, rule: Rule) -> Rule:
        self._rules.append(rule)
        return rule

    def clear(self, seed: int = 0) -> None:
        """Forget all rules and counts, and break off what meets a fault; draw from this seed."""
        for task in list(self._striking):
            self._loop.call_soon_threadsafe(task.cancel)
        self._rules = []
        self._random = random.Random(seed)
        self.requests: list[Request] = []
        """All that came, in order, since the last `clear`."""
        self.in_flight: list[Request] = []
        """Those that have not been answered yet."""
        self._struck: Counter[int] = Counter()

    def struck(self, rule: Rule) -> int:
        """How many requests met this rule's fault."""
        return self._struck[id(rule)]

    def count(self, method: str, key: str = "*") -> int:
        """How many requests came of this method, for keys of this pattern."""
        return sum(
            request.method == method and fnmatchcase(request.key, key) for request in self.requests
        )

    async def _start(self) -> str:
        # Bodies pass as they are, whatever their encoding.
        self._client = ClientSession(
            connector=TCPConnector(limit=0), cookie_jar=DummyCookieJar(), auto_decompress=False
        )
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def _stop(self) -> None:
        self.clear()
        await self._runner.cleanup()
        await self._client.close()

    async def _handle(self, sent: web.BaseRequest) -> web.StreamResponse:
        if "Expect" in sent.headers:
            await sent.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            sent.writer.output_size = 0  # that was not the answer
        body = await sent.content.read()
        request = _understood(sent)
        forward = partial(self._forward, sent, body)
        self.requests.append(request)
        in_flight = self.in_flight
        in_flight.append(request)
        try:
            fault = self._fault_for(request)
            if fault is None:
                return await _send(sent, await forward())
            return await self._strike(sent, fault(request, forward))
        finally:
            in_flight.remove(request)

    async def _strike(
        self, sent: web.BaseRequest, outcome: Coroutine[Any, Any, Answer]
    ) -> web.StreamResponse:
        async def meet_it() -> web.StreamResponse:
            return await _send(sent, await outcome)

        task = self._loop.create_task(meet_it())
        self._striking.add(task)
        try:
            return await task
        except asyncio.CancelledError:  # by `clear`
            return await _send(sent, _BROKEN)
        finally:
            self._striking.remove(task)

    def _fault_for(self, request: Request) -> Fault | None:
        for rule in self._rules:
            if self._struck[id(rule)] == rule.times or not rule.matches(request):
                continue
            if rule.share == 1 or self._random.random() < rule.share:
                self._struck[id(rule)] += 1
                return rule.fault
        return None

    async def _forward(self, sent: web.BaseRequest, body: bytes) -> Answer:
        # The raw path: keys may hold whatever a path can be made of.
        url = URL(self._server + sent.raw_path, encoded=True)
        headers = {
            name: value for name, value in sent.headers.items() if name.lower() not in _OF_ONE_HOP
        }
        async with self._client.request(
            sent.method, url, headers=headers, data=body, allow_redirects=False
        ) as answer:
            return Answer(answer.status, dict(answer.headers), await answer.read())


_OF_ONE_HOP = {"connection", "content-length", "expect", "host", "transfer-encoding"}


def _understood(sent: web.BaseRequest) -> Request:
    bucket, _, key = unquote(sent.raw_path.partition("?")[0])[1:].partition("/")
    return Request(sent.method, bucket, key, sent.query, sent.headers, sent.raw_path)


def _error(status: int, code: str) -> Answer:
    body = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
    return Answer(status, {"Content-Type": "application/xml"}, body)


async def _send(sent: web.BaseRequest, answer: Answer) -> web.StreamResponse:
    """The answer on its way to the client, or its beginning."""
    if sent.transport is None:  # the client has gone
        return web.Response()
    if answer.sent == "nothing":
        _reset(sent)
        return web.Response()
    headers = {
        name: value
        for name, value in answer.headers.items()
        if name.lower() not in _OF_ONE_HOP or name.lower() == "content-length"
    }
    headers.setdefault("Content-Length", str(len(answer.body)))
    response = web.StreamResponse(status=answer.status, headers=headers)
    await response.prepare(sent)
    if sent.method == "HEAD":
        return response
    half = len(answer.body) // 2
    await response.write(answer.body[:half])
    await asyncio.sleep(answer.silence_s)
    if answer.sent == "half":
        _reset(sent)
    else:
        await response.write(answer.body[half:])
    return response


def _reset(sent: web.BaseRequest) -> None:
    """Break the connection by a TCP reset, not by a polite end."""
    assert sent.transport is not None
    connection: socket.socket = sent.transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sent.transport.abort()
