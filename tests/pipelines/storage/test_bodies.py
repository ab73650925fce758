"""GETs that say what a client's own said: to the letter, signed alike, checked alike."""

import asyncio
import gc
import json
import weakref
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore import UNSIGNED
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSPreparedRequest, AWSRequest
from botocore.credentials import ReadOnlyCredentials

from pipelines.photos.errors import ImageError
from pipelines.photos.fetching import ImageRef, fetch
from pipelines.storage import s3
from pipelines.storage.bodies import get_object, remember_requests, sign
from pipelines.storage.s3 import RetryPolicy
from tests.faulty_s3 import Answer, Forward, Request, Rule

QUICK = RetryPolicy(first_backoff_s=0.01, max_backoff_s=0.05, read_timeout_s=5)
MAX_BYTES = 100_000

ODD_KEYS = [
    "a b+c.jpg",
    "a//b.jpg",
    "/a.jpg",
    "//a.jpg",
    "a/",
    "a/../b.jpg",
    "./a.jpg",
    "..",
    "a*[b]?.jpg",
    "a?versionId=b",
    "a%20b%zz%.jpg",
    "a\nb\tc.jpg",
    "größe 写真.jpg",
    "o\N{COMBINING DIAERESIS}.jpg",
    "a#b&c=d;e:f@g,h!i'j(k)~$.jpg",
    'a\\b{c}|d^e`f"g<h>.jpg',
]


@pytest.fixture
def new_connections() -> Iterator[None]:
    """Connections that this test makes, which know no bucket and have no credentials yet."""
    s3.connection.cache_clear()
    yield
    s3.connection.cache_clear()


def _fetch(*uris: str) -> list[bytes | str]:
    fetched = fetch([ImageRef(uri) for uri in uris], MAX_BYTES, QUICK)
    return [str(i.body.kind) if isinstance(i.body, ImageError) else i.body for i in fetched]


def _teach(bucket) -> None:
    """Have the first photo of a bucket, so that the others are asked for as it was."""
    assert _fetch(bucket.put("first.jpg", b"first")) == [b"first"]


@pytest.mark.parametrize("token", [None, "token/+="])
@pytest.mark.parametrize("url", ["http://127.0.0.1:9000/bucket/a%20b", "https://b.s3.aws/a//%3F"])
def test_a_signature_is_that_of_botocore(url: str, token: str | None) -> None:
    headers = {"if-match": '"e"', "x-amz-checksum-mode": "ENABLED", "user-agent": "us"}
    ours = AWSPreparedRequest("GET", url, dict(headers), None, stream_output=True)
    auth = S3SigV4Auth(ReadOnlyCredentials("AKIA", "secret", token), "s3", "eu-west-1")
    sign(ours, auth)
    theirs = AWSRequest("GET", url, {**headers, "x-amz-date": ours.headers["x-amz-date"]})
    theirs.headers["x-amz-content-sha256"] = auth.payload(theirs)
    theirs.context = ours.context
    if token:
        theirs.headers["x-amz-security-token"] = token
    canonical = auth.canonical_request(theirs)
    signature = auth.signature(auth.string_to_sign(theirs, canonical), theirs)
    assert ours.headers["authorization"].endswith(f"Signature={signature}")


async def _say_the_path(request: Request, forward: Forward) -> Answer:
    return Answer(200, {"ETag": '"e"'}, request.raw_path.encode())


def test_a_key_is_sent_as_the_client_sends_it_whatever_it_is(bucket, faulty_s3) -> None:
    _teach(bucket)
    faulty_s3.add(Rule(_say_the_path))

    async def send(client: Any) -> list[bytes]:
        answers = [await client.get_object(Bucket=bucket.name, Key=key) for key in ODD_KEYS]
        return [await answer["Body"].read() for answer in answers]

    paths = _fetch(*(f"s3://{bucket.name}/{key}" for key in ODD_KEYS))
    assert paths == s3.request(send, QUICK)
    assert paths[ODD_KEYS.index("/a.jpg")] == f"/{bucket.name}//a.jpg".encode()
    assert paths[ODD_KEYS.index("a/../b.jpg")] == f"/{bucket.name}/a/../b.jpg".encode()


def test_all_but_the_first_photo_of_a_bucket_are_asked_for_by_less(bucket, faulty_s3) -> None:
    _teach(bucket)
    assert _fetch(bucket.put("second.jpg", b"second")) == [b"second"]
    first, second = (request.headers for request in faulty_s3.requests)
    told_by_botocore_alone = {"amz-sdk-invocation-id", "amz-sdk-request"}
    assert {name.lower() for name in first} - {name.lower() for name in second} == (
        told_by_botocore_alone
    )


@pytest.mark.parametrize("is_known", [False, True])
def test_a_body_that_was_damaged_on_its_way_is_asked_for_again(
    bucket, faulty_s3, is_known: bool
) -> None:
    if is_known:
        _teach(bucket)
    bucket.client.put_object(
        Bucket=bucket.name, Key="a.jpg", Body=b"0123456789", ChecksumAlgorithm="CRC32"
    )

    async def damage(request: Request, forward: Forward) -> Answer:
        return replace(await forward(), body=b"0123456780")

    damaged = faulty_s3.add(Rule(damage, key="a.jpg", times=2))
    assert _fetch(f"s3://{bucket.name}/a.jpg") == [b"0123456789"]
    assert faulty_s3.struck(damaged) == 2


def test_a_bucket_of_another_region_is_asked_there_from_the_second_photo_on(
    bucket, faulty_s3
) -> None:
    uris = [bucket.put(f"{name}.jpg", b"1") for name in "abc"]

    async def elsewhere(request: Request, forward: Forward) -> Answer:
        body = b"<Error><Code>PermanentRedirect</Code><Message>there</Message></Error>"
        return Answer(301, {"x-amz-bucket-region": "eu-west-1"}, body)

    def is_signed_for_here(request: Request) -> bool:
        return "/us-east-1/" in request.headers["Authorization"]

    redirected = faulty_s3.add(Rule(elsewhere, when=is_signed_for_here))
    for uri in uris:
        assert _fetch(uri) == [b"1"]
    assert faulty_s3.struck(redirected) == 1
    assert [request.key for request in faulty_s3.requests] == ["a.jpg", "a.jpg", "b.jpg", "c.jpg"]


@pytest.mark.parametrize(("version", "signed"), [(UNSIGNED, None), ("s3", "AWS")])
def test_what_is_signed_in_another_way_or_not_at_all_is_left_to_the_client(
    bucket, faulty_s3, version: object, signed: str | None
) -> None:
    bucket.client.put_object(Bucket=bucket.name, Key="a.jpg", Body=b"1", ACL="public-read")
    session = AioSession()
    remember_requests(session)

    async def get_twice() -> None:
        config = AioConfig(signature_version=version)
        async with session.create_client("s3", config=config) as client:
            for _ in range(2):
                answer = await get_object(client, bucket.name, "a.jpg")
                assert await answer["Body"].read() == b"1"

    asyncio.run(get_twice())
    told = [request.headers.get("Authorization") for request in faulty_s3.requests]
    assert [words and words.split()[0] for words in told] == [signed] * 2


@pytest.fixture
def no_credentials(new_connections, s3_endpoint, tmp_path, monkeypatch) -> pytest.MonkeyPatch:
    """Nothing says who this process is, until the test does."""
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    return monkeypatch


def test_without_credentials_an_image_is_not_denied(bucket, no_credentials) -> None:
    [image] = fetch([ImageRef(bucket.put("a.jpg", b"1"))], MAX_BYTES, QUICK)
    assert isinstance(image.body, ImageError)
    assert (str(image.body.kind), image.retries) == ("io_error", 0)
    assert "Unable to locate credentials" in str(image.body)


def test_credentials_that_tell_when_they_expire_are_renewed_before_they_are_refused(
    bucket, faulty_s3, no_credentials, tmp_path: Path
) -> None:
    told = tmp_path / "told.json"

    def tell(access_key: str) -> None:
        # botocore renews what has ten minutes left.
        expires = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
        keys = {"AccessKeyId": access_key, "SecretAccessKey": "secret", "SessionToken": "token"}
        told.write_text(json.dumps({"Version": 1, "Expiration": expires, **keys}))

    (tmp_path / "config").write_text(f"[default]\ncredential_process = cat {told}\n")
    for number in range(4):
        tell(f"KEY{number}")
        assert _fetch(bucket.put("a.jpg", b"1")) == [b"1"]
    assert [request.access_key for request in faulty_s3.requests] == [
        "KEY0",
        "KEY1",
        "KEY2",
        "KEY3",
    ]
    assert {request.headers["X-Amz-Security-Token"] for request in faulty_s3.requests} == {"token"}


def test_a_role_is_assumed_by_web_identity_as_in_kubernetes(
    bucket, faulty_s3, no_credentials, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("a token of Kubernetes")
    no_credentials.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    no_credentials.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/photos")
    uri = bucket.put("a.jpg", b"1")
    assert [_fetch(uri), _fetch(uri)] == [[b"1"], [b"1"]]
    gets = [request for request in faulty_s3.requests if request.method == "GET"]
    assert [request.access_key[:4] for request in gets] == ["ASIA", "ASIA"]
    assert all(request.headers["X-Amz-Security-Token"] for request in gets)


def test_a_client_that_was_replaced_is_forgotten(bucket, new_connections) -> None:
    _teach(bucket)

    async def send(client: Any) -> weakref.ref[Any]:
        return weakref.ref(client)

    client = s3.request(send, QUICK)
    assert client() is not None
    s3.connection.cache_clear()
    gc.collect()
    assert client() is None
