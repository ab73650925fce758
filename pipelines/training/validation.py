"""Validation: COCO AP of weights in training, by the code that labels archives."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa

from pipelines.detectors import DetectorSettings, YoloxDetector
from pipelines.evaluation import Judgement, judge
from pipelines.labelling import PART_KEYS, detect_block, detection_rows, fetch_block
from pipelines.photos import ErrorKind, ImageError, fetch
from pipelines.training import process_group
from pipelines.training.data import MAX_IMAGE_BYTES, refuse_another_size, refuse_passing_error
from pipelines.training.photo_cache import Fetch

_IMAGES_PER_BLOCK = 256


def validate(
    checkpoint: bytes, truth: pa.Table, settings: DetectorSettings, fetch: Fetch = fetch
) -> Judgement:
    """Judge a checkpoint on schema.TRAINING; the workers share the images.

    BatchNorm's statistics differ between workers: the checkpoint is the first worker's. The
    targets of images that cannot be used count as missed.

    Raises:
        RunStoppedError: an image cannot be read for the moment.
    """
    detector = YoloxDetector(process_group.of_first_worker(checkpoint), settings)
    sizes_in_table = _sizes(truth)
    mine, kinds = [], Counter[str]()
    for block in _fetched_blocks(truth, fetch):
        detected = detect_block(detector, block)
        failed = _failed(detected, sizes_in_table)
        kinds.update(str(error.kind) for error in failed.values())
        good = [uri not in failed for uri in detected["image_uri"].to_pylist()]
        mine.append(detection_rows(detected.filter(pa.array(good))))
    gathered = process_group.gathered((mine, kinds))
    judgement = judge(pa.concat_tables([t for of_one, _ in gathered for t in of_one]), truth)
    failed_by_kind = sum((of_one for _, of_one in gathered), Counter[str]())
    evaluation = replace(judgement.evaluation, failed_by_kind=failed_by_kind)
    return replace(judgement, evaluation=evaluation)


def _sizes(table: pa.Table) -> dict[str, tuple[int, int]]:
    """(width, height) by URI."""
    columns = (table[name].to_pylist() for name in ("image_uri", "width", "height"))
    return {uri: (width, height) for uri, width, height in zip(*columns, strict=True)}


def _failed(
    detected: pa.Table, sizes_in_table: dict[str, tuple[int, int]]
) -> dict[str, ImageError]:
    """Why images cannot be used, by URI; those that can are left out."""
    sizes = _sizes(detected)
    columns = (detected[name].to_pylist() for name in ("image_uri", "error_kind", "error_message"))
    failed: dict[str, ImageError] = {}
    for uri, kind, message in zip(*columns, strict=True):
        try:
            if kind:
                raise ImageError(ErrorKind(kind), message)
            refuse_another_size(sizes[uri], sizes_in_table[uri])
        except ImageError as error:
            refuse_passing_error(uri, error)
            failed[uri] = error
    return failed


def _fetched_blocks(table: pa.Table, fetch: Fetch) -> Iterator[pa.Table]:
    """This worker's images as schema.FETCHED."""
    mine = np.arange(process_group.rank(), len(table), process_group.world_size())
    for start in range(0, len(mine), _IMAGES_PER_BLOCK):
        photos = table.select(["image_uri", "etag"]).take(mine[start : start + _IMAGES_PER_BLOCK])
        no_part = {key: pa.array([0] * len(photos), pa.int32()) for key in PART_KEYS}
        listed = pa.table(
            no_part
            | {name: photos[name] for name in photos.column_names}
            | {"size_bytes": pa.nulls(len(photos))}
        )
        yield fetch_block(listed, MAX_IMAGE_BYTES, fetch)
