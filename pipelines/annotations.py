"""Annotations in the formats people have, turned into one training table (schema.TRAINING)."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import InputError
from pipelines.schema import CLASS_NAMES_KEY, TRAINING
from pipelines.storage import Folder, read_bytes


def read_coco(annotations_uri: str, images_uri: str) -> pa.Table:
    """Read a COCO `instances_*.json`.

    Class ids are made contiguous, in the order of COCO's category ids. Crowd boxes stay, flagged
    in `is_crowd`. Areas are COCO's, which are those of the segmentation where there is one.

    Args:
        images_uri: the folder or prefix that `file_name` is relative to.

    Raises:
        InputError: the file cannot be read, is no COCO JSON, or contradicts itself.
    """
    try:
        coco = json.loads(read_bytes(annotations_uri))
        images, categories = coco["images"], sorted(coco["categories"], key=lambda c: c["id"])
        annotations_of: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in images}
        for annotation in coco["annotations"]:
            annotations_of[annotation["image_id"]].append(annotation)
        class_ids = {category["id"]: index for index, category in enumerate(categories)}
        folder = Folder(images_uri)
        rows = [
            {
                "image_uri": folder.uri_of(image["file_name"]),
                "width": image["width"],
                "height": image["height"],
                **_coco_targets(annotations_of[image["id"]], class_ids),
            }
            for image in images
        ]
        return training_table(rows, [category["name"] for category in categories])
    except json.JSONDecodeError as error:
        raise InputError(f"{annotations_uri} is not JSON: {error}") from error
    except (KeyError, TypeError, IndexError, pa.ArrowException) as error:
        raise InputError(
            f"{annotations_uri} is not a COCO instances file "
            f"(images, categories, annotations that refer to them): {error!r}"
        ) from error


def training_table(rows: Iterable[Mapping[str, Any]], class_names: Sequence[str]) -> pa.Table:
    """Rows with the columns of schema.TRAINING, and the class names in the schema's metadata."""
    names = {CLASS_NAMES_KEY: json.dumps(list(class_names)).encode()}
    schema = TRAINING.with_metadata({**TRAINING.metadata, **names})
    return pa.Table.from_pylist(list(rows), schema=schema)


def class_names_of(table: pa.Table) -> list[str]:
    """The class names that a training table carries, index = class_id."""
    names: list[str] = json.loads(table.schema.metadata[CLASS_NAMES_KEY])
    return names


def write_training_table(uri: str, table: pa.Table) -> None:
    """Write a training table as one Parquet file, whole or not at all."""
    folder, _, name = uri.rpartition("/")
    Folder(folder or ".").write_table(name, table)


def read_training_table(uri: str) -> tuple[pa.Table, list[str]]:
    """A training table and its class names.

    Raises:
        InputError: the file cannot be read, or lacks columns or class names.
    """
    data = read_bytes(uri)
    try:
        table = pq.read_table(pa.BufferReader(data))
    except pa.ArrowException as error:
        raise InputError(f"{uri} is not a Parquet file: {error}") from error
    missing = [name for name in TRAINING.names if name not in table.column_names]
    if missing:
        raise InputError(
            f"{uri} is not a training table, for it has no column {', '.join(missing)}: "
            "write_training_table() and read_coco() of pipelines.annotations make one"
        )
    if CLASS_NAMES_KEY not in (table.schema.metadata or {}):
        raise InputError(
            f"{uri} has no class names: they belong in its schema metadata, "
            f"key {CLASS_NAMES_KEY.decode()!r}, as a JSON list"
        )
    return table.select(TRAINING.names), class_names_of(table)


def _coco_targets(
    annotations: Sequence[Mapping[str, Any]], class_ids: Mapping[int, int]
) -> dict[str, list[Any]]:
    return {
        "boxes": [_xyxy(annotation["bbox"]) for annotation in annotations],
        "class_ids": [class_ids[annotation["category_id"]] for annotation in annotations],
        "is_crowd": [bool(annotation["iscrowd"]) for annotation in annotations],
        "areas": [annotation["area"] for annotation in annotations],
    }


def _xyxy(box_xywh: Sequence[float]) -> list[float]:
    x, y, width, height = box_xywh
    return [x, y, x + width, y + height]
