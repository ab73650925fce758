"""What the GET of a photo costs: by `fetch`, and by the client that `fetch` is built upon.

    python -m benchmarks.bench_fetch

The server answers at once from a process of its own, 64 requests are in flight, and the ways take
turns. Core-milliseconds are user and system time of this process alone.
"""

import argparse
import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch
from fsspec.asyn import sync

from benchmarks.get_server import ETAG, get_server
from benchmarks.machine import describe_machine
from pipelines.photos import ImageError, ImageRef, fetch_images
from pipelines.storage import IMAGE_RETRIES, s3, split_s3_uri

Way = Callable[[Sequence[ImageRef]], Sequence[bytes | ImageError]]
"""From images to the bytes of each."""


def main() -> None:
    args = _parse_args()
    photo = partial(ImageRef, etag=ETAG, size_bytes=args.size_bytes)
    images = [photo(f"s3://bench/photos/{number:07d}.jpg") for number in range(args.num_images)]
    with get_server(args.size_bytes) as url:
        os.environ |= {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "benchmark",
            "AWS_SECRET_ACCESS_KEY": "benchmark",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        ways: dict[str, Way] = {
            "fetch": partial(fetch_images, max_bytes=args.size_bytes),
            "client": _fetch_by_client,
        }
        _measure(ways, images)  # clients are made, connections are opened
        rounds = [_measure(ways, images) for _ in range(args.rounds)]
    core_ms, paces = (
        {way: median(figures[way][kind] for figures in rounds) for way in ways} for kind in (0, 1)
    )
    result = {
        "machine": describe_machine(torch.device("cpu")),
        "config": vars(args),
        "core_ms_per_get": {way: round(figure, 3) for way, figure in core_ms.items()},
        "gets_per_second": {way: round(figure) for way, figure in paces.items()},
        "core_ms_by_fetch_to_by_client": round(core_ms["fetch"] / core_ms["client"], 3),
    }
    print(json.dumps(result, indent=2))


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num_images", type=int, default=1500, help="in a round, of each way")
    parser.add_argument("--size_bytes", type=int, default=170_000)
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


def _measure(ways: Mapping[str, Way], images: Sequence[ImageRef]) -> dict[str, tuple[float, float]]:
    """Of each way: core-milliseconds of a GET, and GETs a second."""
    return {name: _figures(way, images) for name, way in ways.items()}


def _figures(way: Way, images: Sequence[ImageRef]) -> tuple[float, float]:
    core_s, wall_s = time.process_time(), time.perf_counter()
    bodies = way(images)
    core_s, wall_s = time.process_time() - core_s, time.perf_counter() - wall_s
    assert all(isinstance(body, bytes) for body in bodies), bodies[0]
    return 1000 * core_s / len(images), len(images) / wall_s


def _fetch_by_client(images: Sequence[ImageRef]) -> list[bytes]:
    bodies: list[bytes] = sync(s3.connection_for(IMAGE_RETRIES).loop, _get_all, images)
    return bodies


async def _get_all(images: Sequence[ImageRef]) -> list[bytes]:
    """As `fetch` does it, but for the requests themselves."""
    slots = asyncio.Semaphore(s3.CONNECTIONS)

    async def get_one(image: ImageRef) -> bytes:
        async with slots:
            send = partial(_get_object, image)
            return await s3.connection_for(IMAGE_RETRIES).request(send, IMAGE_RETRIES)

    return await asyncio.gather(*map(get_one, images))


async def _get_object(image: ImageRef, client: Any) -> bytes:
    bucket, key = split_s3_uri(image.uri)
    response = await client.get_object(Bucket=bucket, Key=key, IfMatch=f'"{image.etag}"')
    async with response["Body"]:
        return await s3.read_body(response)


if __name__ == "__main__":
    main()
