"""GETs that say what a client's own said: to the letter, signed alike, checked alike."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSPreparedRequest, AWSRequest
from botocore.credentials import ReadOnlyCredentials

from pipelines.photos.errors import ImageError
from pipelines.photos.fetching import ImageRef, fetch
from pipelines.storage import s3
from pipelines.storage.bodies import sign
from pipelines.storage.s3 import RetryPolicy
from tests.faulty_s3 import Answer, FaultyS3, Forward, Request, Rule

QUICK = RetryPolicy(first_backoff_s=0.01, max_backoff_s=0.05, read_timeout_s=5)

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
    """Connections that this test makes, and that know nothing yet."""
    s3.connection.cache_clear()
    yield
    s3.connection.cache_clear()


def _bodies(uris: list[str]) -> list[bytes | ImageError]:
    return [image.body for image in fetch([ImageRef(uri) for uri in uris], 1000, QUICK)]


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
