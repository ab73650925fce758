"""GETs of S3 objects for a third of what a client's own cost: the first ones teach the others.

For each request botocore finds out anew where the bucket lies and what is to be said there, and
makes much of the answer; that takes longer than the request itself. Here only the first GETs of a
bucket go that way, region redirects and all. What was sent when one succeeded is a pattern: the
others say the same of another key, with the same signer's keys, over the same connections.
"""

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit
from weakref import WeakKeyDictionary

from aiobotocore.endpoint import convert_to_response_dict
from aiobotocore.httpchecksum import handle_checksum_body
from aiobotocore.session import AioSession
from botocore.auth import EMPTY_SHA256_HASH, SIGV4_TIMESTAMP, S3SigV4Auth
from botocore.awsrequest import AWSPreparedRequest, AWSRequest
from botocore.parsers import create_parser

_OPERATION = "GetObject"
_SIGNED_BY_KEYS = "s3v4"
"""Anonymous requests and those of directory buckets are signed in another way, by the client."""


@dataclass(frozen=True)
class _Pattern:
    """A GET as a client sent it, before it was signed."""

    url: str
    """Up to the key."""
    headers: Mapping[str, str]
    """By their names in small letters, but for the host and the condition."""
    context: Mapping[str, Any]
    """What botocore knows of it besides."""
    region: str
    signer: Any

    async def request(self, key: str, etag: str | None) -> AWSPreparedRequest:
        """What asks for this key, on the condition that its ETag is this one."""
        url, headers = self.url + _quoted(key), dict(self.headers)
        if etag:
            headers["if-match"] = f'"{etag}"'
        request = AWSPreparedRequest("GET", url, headers, None, stream_output=True)
        sign(request, await self.signer.get_auth_instance("s3", self.region, _SIGNED_BY_KEYS))
        return request


_sent: ContextVar[_Pattern | None] = ContextVar("_sent", default=None)
"""What this task's client sent last, its key included."""

_patterns: WeakKeyDictionary[Any, dict[str, _Pattern]] = WeakKeyDictionary()
"""By client and bucket."""


def remember_requests(session: AioSession) -> None:
    """Let a session's clients teach `get_object`."""
    session.register(f"before-sign.s3.{_OPERATION}", _remember)


async def get_object(
    client: Any, bucket: str, key: str, etag: str | None = None
) -> Mapping[str, Any]:
    """What `client.get_object` answers: Body, ETag and ContentLength of it.

    Args:
        etag: S3 answers with an error if the object's is another one.

    Raises:
        The client's errors.
    """
    patterns = _patterns.setdefault(client, {})
    if bucket in patterns:
        return await _answer_to(await patterns[bucket].request(key, etag), client, patterns[bucket])
    condition = {"IfMatch": f'"{etag}"'} if etag else {}
    response: Mapping[str, Any] = await client.get_object(Bucket=bucket, Key=key, **condition)
    sent = _sent.get()
    if sent and sent.url.endswith(_quoted(key)):
        patterns[bucket] = replace(sent, url=sent.url.removesuffix(_quoted(key)))
    return response


def _remember(request: AWSRequest, signature_version: str, request_signer: Any, **_: Any) -> None:
    if signature_version != _SIGNED_BY_KEYS:
        _sent.set(None)
        return
    headers = {name.lower(): value for name, value in request.headers.items()}
    headers.pop("if-match", None)
    region = request.context["signing"]["region"]
    _sent.set(_Pattern(request.url, headers, request.context, region, request_signer))


async def _answer_to(
    request: AWSPreparedRequest, client: Any, pattern: _Pattern
) -> Mapping[str, Any]:
    # s3fs takes the same way to the client's connections.
    answer = await client._endpoint.http_session.send(request)
    operation = client.meta.service_model.operation_model(_OPERATION)
    response = await convert_to_response_dict(answer, operation)
    if answer.status_code >= 300:
        error = create_parser("rest-xml").parse(response, operation.output_shape)
        raise client.exceptions.from_code(error["Error"]["Code"])(error, _OPERATION)
    await handle_checksum_body(answer, response, pattern.context, operation)
    size = answer.headers.get("content-length")
    return {
        "Body": response["body"],
        "ETag": answer.headers["etag"],
        "ContentLength": None if size is None else int(size),
    }


def sign(request: AWSPreparedRequest, auth: S3SigV4Auth) -> None:
    """Add the headers of signature version 4 to a GET without a query.

    By botocore itself that takes three times as long, most of it for headers in e-mail's classes.
    """
    url, headers = urlsplit(request.url), request.headers
    request.context = {"timestamp": datetime.now(UTC).strftime(SIGV4_TIMESTAMP)}
    headers |= {
        "host": url.netloc,
        "x-amz-content-sha256": EMPTY_SHA256_HASH,
        "x-amz-date": request.context["timestamp"],
    }
    if auth.credentials.token:
        headers["x-amz-security-token"] = auth.credentials.token
    signed = sorted(headers.keys() - {"user-agent"})
    lines = "".join(f"{name}:{headers[name]}\n" for name in signed)
    names = ";".join(signed)
    canonical = f"GET\n{url.path}\n\n{lines}\n{names}\n{EMPTY_SHA256_HASH}"
    signature = auth.signature(auth.string_to_sign(request, canonical), request)
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={auth.scope(request)}, "
        f"SignedHeaders={names}, Signature={signature}"
    )


def _quoted(key: str) -> str:
    return quote(key, safe="/~")
