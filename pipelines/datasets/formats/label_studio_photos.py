"""The photos of Label Studio's tasks, which it calls by where its server has them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pipelines.datasets.files import is_photo
from pipelines.datasets.photo_names import (
    Matches,
    Photos,
    find_photos,
    list_photos,
    match_names,
)
from pipelines.storage import folder_and_name, is_s3

_ON_THE_SERVER = re.compile(r"^.*/data/upload/\d+/")
_UPLOAD = re.compile(r"^[0-9a-f]{8}-")
"""What it puts before the name of a photo that was uploaded to it."""


def photo_in(data: Mapping[str, Any]) -> str:
    """What a task's data has for its photo: a path, or an s3:// URI.

    Raises:
        ValueError: nothing in it is a photo.
    """
    values = [data.get("image"), *data.values()]
    paths = [_path(value) for value in values if isinstance(value, str)]
    for path in filter(is_photo, paths):
        return path
    raise ValueError("its data names no photo")


def _path(url: str) -> str:
    """Of `/data/local-files/?d=cam1/a.jpg`, `/data/upload/1/0a1b2c3d-a.jpg`, `https://host/a.jpg`."""
    if is_s3(url):
        return url
    parts = urlsplit(url)
    local = parse_qs(parts.query).get("d")
    return local[0] if local else _ON_THE_SERVER.sub("", unquote(parts.path))


def photos_of(uri: str, images: str, paths: Sequence[str]) -> Photos:
    """Those below a folder, or on S3 where the tasks say that they are.

    A photo that was uploaded may lie here under the name that it had before.

    Args:
        uri: of the JSON file, whose folder counts where none is given.

    Raises:
        InputError: there are none.
    """
    if not images and paths and all(map(is_s3, paths)):
        return find_photos(folder_and_name(uri)[0], [], paths)
    folder, names = list_photos(uri, images)
    photos = find_photos(folder, names, paths)
    lost = [path for path in paths if path not in photos.matches.found]
    before = {path: _before_upload(path) for path in lost if _before_upload(path) != path}
    matches = match_names(before.values(), set(names) - set(photos.matches.found.values()))
    found = {path: matches.found[name] for path, name in before.items() if name in matches.found}
    doubts = {path: matches.doubts[name] for path, name in before.items() if name in matches.doubts}
    return replace(
        photos,
        matches=Matches({**photos.matches.found, **found}, {**photos.matches.doubts, **doubts}),
        notes=[*photos.notes, *_of_uploads(found)],
    )


def _of_uploads(found: Mapping[str, str]) -> list[str]:
    if not found:
        return []
    path, there = next(iter(found.items()))
    count = f"{len(found):,} photos were found by their name before Label Studio had them"
    return [f"{count}: {path} is {there}"]


def _before_upload(path: str) -> str:
    *folders, name = path.split("/")
    return "/".join([*folders, _UPLOAD.sub("", name, count=1)])
