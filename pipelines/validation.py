"""Validation: COCO AP of weights in training, by the code that labels archives."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from pipelines import workers
from pipelines.detected import detect_block
from pipelines.detection import DetectorSettings
from pipelines.detector import Detector
from pipelines.evaluation import Evaluation, evaluate
from pipelines.fetch import fetch_block
from pipelines.parts import detection_rows
from pipelines.schema import PART_KEYS
from pipelines.training_data import MAX_IMAGE_BYTES

_IMAGES_PER_BLOCK = 256


def validate(checkpoint: bytes, truth: pa.Table, settings: DetectorSettings) -> Evaluation:
    """COCO AP of a checkpoint on schema.TRAINING; the workers share the images.

    BatchNorm's statistics differ between workers: the checkpoint is the first worker's.
    """
    detector = Detector(workers.of_first_worker(checkpoint), settings)
    mine = [detection_rows(detect_block(detector, block)) for block in _fetched_blocks(truth)]
    found = [table for of_one in workers.gathered(mine) for table in of_one]
    return evaluate(pa.concat_tables(found), truth)


def _fetched_blocks(table: pa.Table) -> Iterator[pa.Table]:
    """This worker's images as schema.FETCHED."""
    mine = np.arange(workers.rank(), len(table), workers.world_size())
    for start in range(0, len(mine), _IMAGES_PER_BLOCK):
        uris = table["image_uri"].take(mine[start : start + _IMAGES_PER_BLOCK]).combine_chunks()
        no_part = {key: pa.array([0] * len(uris), pa.int32()) for key in PART_KEYS}
        unknown = {"etag": pa.nulls(len(uris), pa.string()), "size_bytes": pa.nulls(len(uris))}
        listed = pa.table(no_part | {"image_uri": uris} | unknown)
        yield fetch_block(listed, MAX_IMAGE_BYTES)
