"""GETs of S3 objects for a third of what a client's own cost: the first ones teach the others.

For each request botocore finds out anew where the bucket lies and what is to be said there, which
takes longer than the request itself. Here only the first GETs of a bucket go that way, region
redirects and all. What was sent when one succeeded is a pattern: the others say the same of another
key, with credentials of the same chain, over the same connections.
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
_BY_KEYS = "s3v4"
"""How most requests are signed. Those to directory buckets, and anonymous ones, are not, and go by
the client."""


@dataclass(frozen=True)
class _Pattern:
    """A GET as a client sent it, before it was signed, less its condition."""

    url: str
    """Up to the key."""
    headers: Mapping[str, str]
    """By their names in small letters, without the host."""
    service: str
    region: str
    signer: Any
    checksum: Mapping[str, Any]
    """Which checksums botocore asked for and can check."""

    async def request(self, key: str, etag: str | None) -> AWSPreparedRequest:
        """What asks for this key, on the condition that its ETag is this one."""
        url, headers = self.url + quote(key), dict(self.headers)
        if etag:
            headers["if-match"] = f'"{etag}"'
        request = AWSPreparedRequest("GET", url, headers, None, stream_output=True)
        # The signer looks whether its credentials are to be renewed.
        sign(request, await self.signer.get_auth_instance(self.service, self.region, _BY_KEYS))
        return request


_sent: ContextVar[_Pattern | None] = ContextVar("_sent", default=None)
"""What a client sent last in this task, its key included."""

_patterns: WeakKeyDictionary[Any, dict[str, _Pattern]] = WeakKeyDictionary()
"""By client and bucket."""


def remember_requests(session: AioSession) -> None:
    """Let a session's clients teach `get_object`."""
    session.register(f"before-sign.s3.{_OPERATION}", _remember)


async def get_object(
    client: Any, bucket: str, key: str, etag: str | None = None
) -> Mapping[str, Any]:
    """The Body, ETag and ContentLength that `client.get_object` answers with.

    Args:
        client: aiobotocore's; without `remember_requests` nothing is saved.
        etag: S3 refuses an object with another one.

    Raises:
        What the client raises.
    """
    pattern = _patterns.get(client, {}).get(bucket)
    if pattern:
        return await _get_alike(pattern, client, key, etag)
    return await _get_and_learn(client, bucket, key, etag)


async def _get_and_learn(client: Any, bucket: str, key: str, etag: str | None) -> Mapping[str, Any]:
    condition = {"IfMatch": f'"{etag}"'} if etag else {}
    response: Mapping[str, Any] = await client.get_object(Bucket=bucket, Key=key, **condition)
    sent = _sent.get()
    if sent and sent.url.endswith(quote(key)):
        pattern = replace(sent, url=sent.url.removesuffix(quote(key)))
        _patterns.setdefault(client, {})[bucket] = pattern
    return response


def _remember(request: AWSRequest, signature_version: str, request_signer: Any, **_: Any) -> None:
    """A handler of botocore's before-sign, which knows the bucket's region and endpoint."""
    signing = request.context.get("signing", {})
    if signature_version != _BY_KEYS or not signing.keys() >= {"signing_name", "region"}:
        _sent.set(None)
        return
    headers = {name.lower(): value for name, value in request.headers.items()}
    headers.pop("if-match", None)
    _sent.set(
        _Pattern(
            url=request.url,
            headers=headers,
            service=signing["signing_name"],
            region=signing["region"],
            signer=request_signer,
            checksum=request.context.get("checksum", {}),
        )
    )


async def _get_alike(
    pattern: _Pattern, client: Any, key: str, etag: str | None
) -> Mapping[str, Any]:
    request = await pattern.request(key, etag)
    # s3fs, too, takes this way to the client's connections.
    answer = await client._endpoint.http_session.send(request)
    operation = client.meta.service_model.operation_model(_OPERATION)
    response = await convert_to_response_dict(answer, operation)
    if answer.status_code >= 300:
        error = create_parser("rest-xml").parse(response, operation.output_shape)
        raise client.exceptions.from_code(error["Error"]["Code"])(error, _OPERATION)
    await handle_checksum_body(answer, response, {"checksum": pattern.checksum}, operation)
    size = answer.headers.get("content-length")
    return {
        "Body": response["body"],
        "ETag": answer.headers["etag"],
        "ContentLength": None if size is None else int(size),
    }


def sign(request: AWSPreparedRequest, auth: S3SigV4Auth) -> None:
    """Add the headers of signature version 4 to a GET without a query.

    By botocore itself that takes four times as long, most of it for headers in e-mail's classes.
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
