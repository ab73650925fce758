import asyncio
import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from benchmarks.list_server import list_server
from pipelines.storage import s3
from pipelines.storage.objects import ABREAST, list_objects
from tests.faulty_s3 import Answer, FaultyS3, Forward, Request, Rule, access_denied, stall

PREFIX = "photos/"


def _shapes() -> dict[str, list[str]]:
    """Archives as people name their photos."""
    draw = random.Random(7)
    return {
        "numbered": [f"{PREFIX}2026/img_{number:07d}.jpg" for number in range(3000)],
        "numbered without zeros": [f"{PREFIX}{number}.jpg" for number in range(3000)],
        "by day": [
            f"{PREFIX}2026/{month:02d}/{day:02d}/DSC{draw.randrange(10**5):05d}-{n}.JPG"
            for month in range(1, 13)
            for day in range(1, 29)
            for n in range(draw.choice([0, 1, 40]))
        ],
        "by chance": [f"{PREFIX}{uuid.UUID(int=draw.getrandbits(128))}" for _ in range(3000)],
        "in one far folder": [f"{PREFIX}{'a/' * 60}{number:05d}" for number in range(2000)],
        "in all scripts": [f"{PREFIX}{'ä東z'[n % 3]}/{n}%+ ü&<b>.jpg" for n in range(2000)],
        "one crowd among few": [f"{PREFIX}{letter}" for letter in "abcxyz"]
        + [f"{PREFIX}m/{number:06d}" for number in range(3000)],
    }


@contextmanager
def _names(folder: Path, keys: list[str], page: int, monkeypatch) -> Iterator[str]:
    """The URL of an S3 with these keys, and some before and behind them."""
    names = folder / "names"
    names.write_text("\n".join(sorted([*keys, "photographs", "photoz/1.jpg"])) + "\n")
    with list_server(names, page=page) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3.connection.cache_clear()
        yield url
    s3.connection.cache_clear()


@pytest.mark.parametrize("shape", _shapes())
def test_ranges_that_are_listed_side_by_side_give_every_key_once_in_order(
    tmp_path, monkeypatch, shape: str
) -> None:
    keys = sorted(set(_shapes()[shape]))
    with _names(tmp_path, keys, 20, monkeypatch):
        assert [item.key for item in list_objects(f"s3://bucket/{PREFIX}")] == keys


def test_a_listing_begins_after_the_key_that_it_is_given(tmp_path, monkeypatch) -> None:
    keys = _shapes()["numbered"]
    with _names(tmp_path, keys, 100, monkeypatch):
        listed = list_objects(f"s3://bucket/{PREFIX}", after=keys[1234])
        assert [item.key for item in listed] == keys[1235:]


def test_a_listing_that_nobody_takes_on_asks_for_no_more(tmp_path, monkeypatch) -> None:
    keys = _shapes()["numbered"]
    with _names(tmp_path, keys, 10, monkeypatch) as url, FaultyS3(url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        proxy.add(Rule(stall(0.2)))
        listing = list_objects(f"s3://bucket/{PREFIX}")
        assert [item.key for item in islice(listing, 15)] == keys[:15]
        listing.close()
        asked = len(proxy.requests)
        time.sleep(1.0)
        assert len(proxy.requests) <= asked + ABREAST  # those that were on their way
        assert len(proxy.requests) < len(keys) / 10


def test_a_slow_server_is_asked_for_many_ranges_at_a_time(tmp_path, monkeypatch) -> None:
    keys = _shapes()["numbered"]
    in_flight = []
    with _names(tmp_path, keys, 40, monkeypatch) as url, FaultyS3(url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)

        async def slow(request: Request, forward: Forward) -> Answer:
            in_flight.append(len(proxy.in_flight))
            await asyncio.sleep(0.1)
            return await forward()

        proxy.add(Rule(slow))
        assert [item.key for item in list_objects(f"s3://bucket/{PREFIX}")] == keys
    assert max(in_flight) >= 16
    assert len(in_flight) < 3 * len(keys) / 40  # guesses that find nothing are few


def test_of_a_listing_that_is_denied_half_way_no_end_is_made_up(tmp_path, monkeypatch) -> None:
    keys = _shapes()["numbered"]
    with _names(tmp_path, keys, 100, monkeypatch) as url, FaultyS3(url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        proxy.add(Rule(access_denied, when=lambda asked: "start-after" in asked.query, times=1))
        with pytest.raises(ClientError, match="AccessDenied"):
            list(list_objects(f"s3://bucket/{PREFIX}"))
