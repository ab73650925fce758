"""The bytes of many images at once, from S3 or a disk, or the typed error why there are none."""

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fsspec.asyn import sync

from pipelines import storage
from pipelines.photos.errors import ErrorKind, ImageError
from pipelines.storage import IMAGE_RETRIES, RetryPolicy, s3


@dataclass(frozen=True)
class ImageRef:
    """An image as the manifest lists it."""

    uri: str
    etag: str | None = None
    size_bytes: int | None = None


@dataclass(frozen=True)
class Fetched:
    """What came of an image, and the tries it took beyond the first."""

    body: bytes | ImageError
    etag: str | None = None
    """Of the bytes that were read."""
    retries: int = 0


def fetch_images(images: Sequence[ImageRef], max_bytes: int) -> list[bytes | ImageError]:
    """The bytes of every image, or why there are none, in the order given."""
    return [image.body for image in fetch(images, max_bytes)]


def fetch(
    images: Sequence[ImageRef], max_bytes: int, policy: RetryPolicy = IMAGE_RETRIES
) -> list[Fetched]:
    """What came of every image, in the order given.

    Requests to S3 run side by side, up to `s3.CONNECTIONS` at once. An object whose ETag is no
    longer the listed one is `changed`: its bytes are not those that the manifest names.
    """
    on_s3 = [image for image in images if storage.is_s3(image.uri)]
    on_disk = [image for image in images if not storage.is_s3(image.uri)]
    fetched: dict[ImageRef, Fetched] = {}
    if on_s3:
        loop = s3.connection_for(policy).loop
        fetched |= sync(loop, _fetch_from_s3, on_s3, max_bytes, policy)
    if on_disk:
        with ThreadPoolExecutor(8) as pool:
            files = pool.map(lambda image: _fetch_from_disk(image, max_bytes), on_disk)
            fetched |= dict(zip(on_disk, files, strict=True))
    return [fetched[image] for image in images]


async def _fetch_from_s3(
    images: Sequence[ImageRef], max_bytes: int, policy: RetryPolicy
) -> dict[ImageRef, Fetched]:
    # An image that waits for its next try keeps its slot: S3 that is too busy gets less to do.
    slots = asyncio.Semaphore(s3.CONNECTIONS)

    async def fetch_one(image: ImageRef) -> Fetched:
        async with slots:
            return await _fetch_object(image, max_bytes, policy)

    return dict(zip(images, await asyncio.gather(*map(fetch_one, images)), strict=True))


async def _fetch_object(image: ImageRef, max_bytes: int, policy: RetryPolicy) -> Fetched:
    tries = 0

    async def send(client: Any) -> Fetched:
        nonlocal tries
        tries += 1
        return await _get_object(client, image, max_bytes)

    try:
        fetched = await s3.connection_for(policy).request(send, policy)
    except ImageError as error:
        fetched = Fetched(error)
    except Exception as error:  # whatever one request runs into, it costs one row
        fetched = Fetched(ImageError(_error_kind(error), f"{type(error).__name__}: {error}"))
    return replace(fetched, retries=max(tries - 1, 0))


async def _get_object(client: Any, image: ImageRef, max_bytes: int) -> Fetched:
    _refuse_too_large(image.size_bytes, max_bytes)
    bucket, key = storage.split_s3_uri(image.uri)
    response = await storage.get_object(client, bucket, key, image.etag)
    async with response["Body"]:
        _refuse_too_large(response["ContentLength"], max_bytes)
        return Fetched(await s3.read_body(response), response["ETag"].strip('"'))


_ERROR_KINDS = {
    403: ErrorKind.DENIED,  # also of an archived object, which would have to be restored first
    404: ErrorKind.GONE,
    412: ErrorKind.CHANGED,
}


def _error_kind(error: Exception) -> ErrorKind:
    if s3.credentials_are_stale(error):
        return ErrorKind.IO_ERROR  # it says nothing about this image
    return _ERROR_KINDS.get(s3.status(error), ErrorKind.IO_ERROR)


def _fetch_from_disk(image: ImageRef, max_bytes: int) -> Fetched:
    try:
        with Path(storage.normalise_uri(image.uri)).open("rb") as file:
            status = os.fstat(file.fileno())
            etag = storage.etag_of_file(status)
            if image.etag not in (None, etag):
                raise ImageError(ErrorKind.CHANGED, "written again since it was listed")
            _refuse_too_large(status.st_size, max_bytes)
            return Fetched(file.read(), etag)
    except ImageError as error:
        failure = error
    except FileNotFoundError as error:
        failure = ImageError(ErrorKind.GONE, str(error))
    except PermissionError as error:
        failure = ImageError(ErrorKind.DENIED, str(error))
    except (OSError, ValueError) as error:
        failure = ImageError(ErrorKind.IO_ERROR, f"{type(error).__name__}: {error}")
    return Fetched(failure)


def _refuse_too_large(size_bytes: int | None, max_bytes: int) -> None:
    if size_bytes is not None and size_bytes > max_bytes:
        raise ImageError(
            ErrorKind.TOO_LARGE, f"{size_bytes} bytes: more than max_image_bytes={max_bytes}"
        )
