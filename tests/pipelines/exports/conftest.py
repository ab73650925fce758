"""A table of real photos: some with boxes, some without, some that failed, and odd names."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipelines.storage import etag_of_file
from pipelines.storage.folder import Folder

CLASSES = ["cat", 'dog & "bird"', "größe"]

Found = list[tuple[str, float, tuple[float, float, float, float]]]
"""Class, score and corners of the boxes of an image, by falling score."""


@dataclass(frozen=True)
class Archive:
    """Photos below `photos` and the table of a run over them."""

    table: Folder
    photos: Folder
    labelled: dict[str, Found] = field(default_factory=dict)
    """By URI."""
    failed: dict[str, str] = field(default_factory=dict)
    """URI to error kind."""
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """(width, height)"""

    def with_names(self) -> dict[str, Found]:
        """What was found, by the path below the photos' folder."""
        return {
            uri.removeprefix(f"{self.photos.uri}/"): found for uri, found in self.labelled.items()
        }


def float32(value: float) -> float:
    return float(np.float32(value))


@pytest.fixture
def archive(tmp_path: Path, labelled_run: Callable[..., Any]) -> Archive:
    """Ten images: three of five have boxes, one has none, one failed."""
    made = labelled_run(num_images=10)
    archive = Archive(Folder(str(tmp_path / "labels")), Folder(str(tmp_path / "photos")))
    rng = np.random.default_rng(0)
    renamed = {}
    for row in [row for part in made.images.values() for row in part]:
        number = int(row["image_uri"][-9:-4])
        uri = archive.photos.uri_of(f"2026-1{number % 2}/deep down/{number // 2} ü.jpg")
        renamed[row["image_uri"]] = row["image_uri"] = uri
        _take_photo(archive, row, width=64 + number, height=48, rng=rng)
    for row in made.manifest:
        row["image_uri"] = renamed[row["image_uri"]]
    for row in [row for part in made.detections.values() for row in part]:
        row["image_uri"] = renamed[row["image_uri"]]
        _place_box(archive, row, rng)
    made.write(archive.table)
    return archive


def _take_photo(archive: Archive, row: dict[str, Any], width: int, height: int, rng: Any) -> None:
    uri = row["image_uri"]
    pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
    archive.photos.write(
        uri.removeprefix(f"{archive.photos.uri}/"), cv2.imencode(".jpg", pixels)[1].tobytes()
    )
    status = Path(uri).stat()
    row |= {"etag": etag_of_file(status), "size_bytes": status.st_size}
    if row["status"] == "failed":
        archive.failed[uri] = row["error_kind"]
        return
    row |= {"width": width, "height": height}
    archive.labelled[uri] = []
    archive.sizes[uri] = (width, height)


def _place_box(archive: Archive, row: dict[str, Any], rng: Any) -> None:
    width, height = archive.sizes[row["image_uri"]]
    row["class_name"] = CLASSES[row["class_id"]]
    x1, y1 = rng.uniform(0, (width / 2, height / 2)).astype(np.float32).tolist()
    x2, y2 = rng.uniform((x1 + 2, y1 + 2), (width, height)).astype(np.float32).tolist()
    row |= {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "image_width": width, "image_height": height}
    found = (row["class_name"], float32(row["score"]), (x1, y1, x2, y2))
    archive.labelled[row["image_uri"]].append(found)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())
