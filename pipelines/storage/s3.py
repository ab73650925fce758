"""Requests to S3 that stand its bad days: tried again, after a while, with fresh credentials.

Nothing else tries again: botocore's own retries are switched off and s3fs's are not used, so that
the count of tries is true and no layer multiplies another's waiting. Only aiohttp sends a request
once more, at once and uncounted, if the connection breaks before the answer.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, TypeVar

import aiohttp
import s3fs
from aiobotocore.session import AioSession
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
    ResponseStreamingError,
)
from botocore.handlers import add_expect_header
from botocore.parsers import ResponseParserError
from fsspec.asyn import FSTimeoutError, sync

from pipelines.storage.bodies import remember_requests
from pipelines.storage.pages import take_objects

CONNECTIONS = 64
"""Requests that one process keeps in flight."""

ERRORS = (BotoCoreError, ClientError, ResponseParserError, OSError)
"""What a request raises when it was tried in vain."""

Answer = TypeVar("Answer")
Send = Callable[[Any], Awaitable[Answer]]
"""One try of a request, by an aiobotocore client."""


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often and how long a request is tried before it has failed.

    The defaults are for one image among millions. S3 that says no at once is asked for 21 s on
    average, 43 s at most; S3 that does not answer, for a minute.
    """

    attempts: int = 10
    """Where 30 % of the requests fail, 6 objects in a million fail ten times."""
    first_backoff_s: float = 0.2
    max_backoff_s: float = 10.0
    patience_s: float = 54.0
    """No try begins later than this after the first one."""
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 6.0
    """Of silence, not of the whole answer."""
    longest_try_s: float = 300.0
    """Of what never falls silent and never ends: a body that drips, or is not taken from us."""

    def backoff_s(self, retry: int) -> float:
        """Seconds to wait before a retry, counted from 1: exponential, with full jitter."""
        longest = min(self.max_backoff_s, self.first_backoff_s * 2 ** (retry - 1))
        return random.uniform(0, longest)


IMAGE_RETRIES = RetryPolicy()
TABLE_RETRIES = RetryPolicy(patience_s=300, read_timeout_s=20, longest_try_s=1200)
"""For what a run cannot do without: its listing, tables, records and states. S3 answers a PUT when
it has stored all of it, which takes longer than a photo's first byte."""


class Connection:
    """This process's way to S3 with certain time-outs: a client, until its credentials are stale.

    Endpoint, region and credentials are what botocore finds, whenever a session is made.
    """

    def __init__(self, connect_timeout_s: float, read_timeout_s: float) -> None:
        self._config = {
            "connect_timeout": connect_timeout_s,
            "read_timeout": read_timeout_s,
            "max_pool_connections": CONNECTIONS,
            "retries": {"total_max_attempts": 1},
        }
        self._filesystem = self._new_filesystem(_new_session())
        self._renewing = asyncio.Lock()
        self.loop = self._filesystem.loop

    def _new_filesystem(self, session: AioSession) -> s3fs.S3FileSystem:
        return s3fs.S3FileSystem(
            session=session, config_kwargs=self._config, skip_instance_cache=True
        )

    async def request(self, send: Send[Answer], policy: RetryPolicy) -> Answer:
        """The answer to a request that may be sent more than once; to be awaited in `loop`.

        Raises:
            ERRORS: S3 refuses it for good, or every try failed; this is the last one's error.
        """
        started = time.monotonic()
        for attempt in itertools.count(1):
            # s3fs closes its client when it goes: it must outlive the request.
            filesystem = self._filesystem
            try:
                async with asyncio.timeout(policy.longest_try_s):
                    return await send(await filesystem.set_session())
            except Exception as error:
                wait_s = policy.backoff_s(attempt)
                in_time = time.monotonic() - started + wait_s <= policy.patience_s
                if not may_pass(error) or attempt == policy.attempts or not in_time:
                    raise
                stale = credentials_are_stale(error)
            if stale:
                await self._renew(filesystem)
            await asyncio.sleep(wait_s)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _renew(self, stale: s3fs.S3FileSystem) -> None:
        """Ask the provider chain anew, unless another request has done so meanwhile."""
        async with self._renewing:
            if self._filesystem is not stale:
                return
            session = _new_session()
            try:
                keys = await _keys(session)
            except ERRORS:
                return  # a file that is just being rewritten: the next try looks again
            # A new client takes a tenth of a second, in which nothing else happens here.
            if keys and keys != await _keys(stale.session):
                self._filesystem = self._new_filesystem(session)


def _new_session() -> AioSession:
    session = AioSession()
    # A PUT would wait for S3's `100 Continue` first, and aiohttp waits for that without a time-out.
    session.unregister("before-call.s3", add_expect_header)
    # With the star it comes before botocore's own, one of which parses the whole body.
    session.register("before-parse.*.ListObjectsV2", take_objects)
    remember_requests(session)
    return session


async def _keys(session: AioSession) -> Any:
    """(access key, secret key, token), or None where the provider chain finds none."""
    credentials = await session.get_credentials()
    return credentials and await credentials.get_frozen_credentials()


@cache
def connection(connect_timeout_s: float, read_timeout_s: float) -> Connection:
    """This process's one connection with these time-outs."""
    return Connection(connect_timeout_s, read_timeout_s)


def connection_for(policy: RetryPolicy) -> Connection:
    return connection(policy.connect_timeout_s, policy.read_timeout_s)


def request(send: Send[Answer], policy: RetryPolicy) -> Answer:
    """`Connection.request` for code that does not run in an event loop."""
    return call(partial(connection_for(policy).request, send, policy), policy)


def call(work: Callable[[], Awaitable[Answer]], policy: RetryPolicy) -> Answer:
    """What is to be awaited in the loop of S3's connection, for code that does not run in one."""
    try:
        answer: Answer = sync(connection_for(policy).loop, work)
    except FSTimeoutError as error:  # fsspec's, which says nothing
        raise TimeoutError(f"S3 did not answer in time: {error.__cause__!r}") from error
    return answer


async def read_body(response: Any) -> bytes:
    """The whole body of a GET's answer; the client holds it to the length that was announced."""
    try:
        data: bytes = await response["Body"].read()
    except aiohttp.ClientPayloadError as error:  # the one that aiobotocore does not translate
        raise ResponseStreamingError(error=error) from error
    return data


_STALE_CREDENTIALS = {
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "RequestExpired",
    "TokenRefreshRequired",
}

_PASSING_CODES = _STALE_CREDENTIALS | {
    "BadDigest",  # damaged on its way to S3, as are the next two
    "IncompleteBody",
    "XAmzContentSHA256Mismatch",
    "ConditionalRequestConflict",
    "OperationAborted",
    "RequestTimeout",
    "Throttling",
    "ThrottlingException",
}
_PASSING_STATUSES = {408, 429, 500, 502, 503, 504}
_PASSING_ERRORS = (
    ConnectionError,
    CredentialRetrievalError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
    OSError,
    ResponseParserError,
)


def may_pass(error: Exception) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, ClientError):
        return error_code(error) in _PASSING_CODES or status(error) in _PASSING_STATUSES
    return isinstance(error, _PASSING_ERRORS)


def credentials_are_stale(error: Exception) -> bool:
    """Whether S3 refuses the credentials themselves, rather than what they ask for."""
    return error_code(error) in _STALE_CREDENTIALS


def error_code(error: Exception) -> str:
    """S3's name for an error; empty where S3 did not answer."""
    return str(error.response["Error"]["Code"]) if isinstance(error, ClientError) else ""


def status(error: Exception) -> int:
    """The HTTP status of S3's answer; 0 where there was none."""
    if not isinstance(error, ClientError):
        return 0
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
