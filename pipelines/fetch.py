"""The bytes of many images at once, from S3 or a disk, or the typed error why there are none."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from botocore.exceptions import ClientError
from fsspec.asyn import sync

from pipelines import storage
from pipelines.images import ErrorKind, ImageError
from pipelines.schema import FETCHED

ATTEMPTS = 4
_FIRST_BACKOFF_S = 0.2


@dataclass(frozen=True)
class ImageRef:
    """An image as the manifest lists it."""

    uri: str
    etag: str | None = None
    size_bytes: int | None = None


def fetch_block(listed: pa.Table, max_bytes: int) -> pa.Table:
    """The fetch stage: (image_uri, etag, size_bytes) to schema.FETCHED."""
    started = time.perf_counter()
    columns = (listed[name].to_pylist() for name in ("image_uri", "etag", "size_bytes"))
    bodies = fetch_images([ImageRef(*row) for row in zip(*columns, strict=True)], max_bytes)
    errors = [body if isinstance(body, ImageError) else None for body in bodies]
    seconds = (time.perf_counter() - started) / max(len(bodies), 1)
    values = {
        "image_uri": listed["image_uri"],
        "etag": listed["etag"],
        "size_bytes": listed["size_bytes"],
        "data": [None if isinstance(body, ImageError) else body for body in bodies],
        "error_kind": [error and str(error.kind) for error in errors],
        "error_message": [error and str(error) for error in errors],
        "fetch_seconds": [seconds] * len(bodies),
    }
    return pa.Table.from_pydict(values, schema=FETCHED)


def fetch_images(images: Sequence[ImageRef], max_bytes: int) -> list[bytes | ImageError]:
    """The bytes of every image, or why there are none, in the order given.

    Requests to S3 run side by side, up to `storage.S3_CONNECTIONS` at once. An object whose ETag
    is no longer the listed one is `changed`: its bytes are not those that the manifest names.
    """
    on_s3 = [image for image in images if storage.is_s3(image.uri)]
    on_disk = [image for image in images if not storage.is_s3(image.uri)]
    fetched: dict[ImageRef, bytes | ImageError] = {}
    if on_s3:
        filesystem = storage.s3_filesystem()
        fetched |= sync(filesystem.loop, _fetch_from_s3, filesystem, on_s3, max_bytes)
    if on_disk:
        with ThreadPoolExecutor(8) as pool:
            bodies = pool.map(lambda image: _fetch_from_disk(image, max_bytes), on_disk)
            fetched |= dict(zip(on_disk, bodies, strict=True))
    return [fetched[image] for image in images]


async def _fetch_from_s3(
    filesystem: Any, images: Sequence[ImageRef], max_bytes: int
) -> dict[ImageRef, bytes | ImageError]:
    # s3fs's own cat() would expand `*` and `[` in keys, cut them at `?versionId=` and send a HEAD
    # before each GET; its client does none of that.
    client = await filesystem.set_session()
    slots = asyncio.Semaphore(storage.S3_CONNECTIONS)

    async def fetch(image: ImageRef) -> bytes | ImageError:
        async with slots:
            return await _with_retries(lambda: _get_object(client, image, max_bytes))

    bodies = await asyncio.gather(*map(fetch, images))
    return dict(zip(images, bodies, strict=True))


async def _get_object(client: Any, image: ImageRef, max_bytes: int) -> bytes:
    _refuse_too_large(image.size_bytes, max_bytes)
    bucket, key = storage.split_s3_uri(image.uri)
    if_match = {"IfMatch": f'"{image.etag}"'} if image.etag else {}
    response = await client.get_object(Bucket=bucket, Key=key, **if_match)
    async with response["Body"] as body:
        _refuse_too_large(response["ContentLength"], max_bytes)
        data: bytes = await body.read()
    return data


async def _with_retries(get: Callable[[], Awaitable[bytes]]) -> bytes | ImageError:
    """Try again after what may pass by itself, with exponential back-off and full jitter."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return await get()
        except ImageError as error:
            return error
        except Exception as error:
            failure = _s3_failure(error)
        if failure.kind is not ErrorKind.IO_ERROR or attempt == ATTEMPTS:
            break
        await asyncio.sleep(random.uniform(0, _FIRST_BACKOFF_S * 2**attempt))
    return failure


_S3_ERROR_KINDS = {
    "NoSuchKey": ErrorKind.GONE,
    "NoSuchBucket": ErrorKind.GONE,
    "404": ErrorKind.GONE,
    "AccessDenied": ErrorKind.DENIED,
    "403": ErrorKind.DENIED,
    "InvalidObjectState": ErrorKind.DENIED,  # archived: it would have to be restored first
    "PreconditionFailed": ErrorKind.CHANGED,
    "412": ErrorKind.CHANGED,
}


def _s3_failure(error: Exception) -> ImageError:
    code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
    kind = _S3_ERROR_KINDS.get(code, ErrorKind.IO_ERROR)
    return ImageError(kind, f"{type(error).__name__}: {error}")


def _fetch_from_disk(image: ImageRef, max_bytes: int) -> bytes | ImageError:
    try:
        path = Path(storage.normalise_uri(image.uri))
        _refuse_too_large(path.stat().st_size, max_bytes)
        return path.read_bytes()
    except ImageError as error:
        return error
    except FileNotFoundError as error:
        return ImageError(ErrorKind.GONE, str(error))
    except PermissionError as error:
        return ImageError(ErrorKind.DENIED, str(error))
    except (OSError, ValueError) as error:
        return ImageError(ErrorKind.IO_ERROR, f"{type(error).__name__}: {error}")


def _refuse_too_large(size_bytes: int | None, max_bytes: int) -> None:
    if size_bytes is not None and size_bytes > max_bytes:
        raise ImageError(
            ErrorKind.TOO_LARGE, f"{size_bytes} bytes: more than max_image_bytes={max_bytes}"
        )
