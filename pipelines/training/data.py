"""The two training tables of a run, checked, and what is wrong with a photo of theirs.

No torch in here: a mistake is told before it is imported.
"""

import hashlib
import logging
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.datasets import parse_training_table
from pipelines.errors import InputError, RunStoppedError
from pipelines.photos import ErrorKind, ImageError
from pipelines.storage import read_bytes

MAX_PIXELS = 100_000_000
"""Larger images are refused from their header."""
MAX_IMAGE_BYTES = 256 * 1024 * 1024
"""Larger files are not fetched."""

_PASSING = (ErrorKind.IO_ERROR, ErrorKind.OUT_OF_MEMORY)
"""Kinds of errors that say nothing about the image: it may be good the next time."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """The two tables (schema.TRAINING) of a run, checked, and the class names they share."""

    train: pa.Table
    val: pa.Table
    class_names: tuple[str, ...]
    sha256: dict[str, str]
    """Of the files, by "train" and "val": boxes may be edited at the same path."""


def read_training_data(train_uri: str, val_uri: str) -> TrainingData:
    """Read and check both tables; warn of classes that can be measured and not learned.

    Raises:
        InputError: a table cannot be read, has no images or no boxes, boxes that do not go with
            its class ids, or other class names than the other table.
    """
    # Once: what is digested is what is trained on.
    train_file, val_file = read_bytes(train_uri), read_bytes(val_uri)
    train, class_names = parse_training_table(train_file, train_uri)
    val, val_class_names = parse_training_table(val_file, val_uri)
    if class_names != val_class_names:
        raise InputError(
            f"{train_uri} has the classes {class_names} and {val_uri} has {val_class_names}: "
            "both tables need the same names in the same order"
        )
    for uri, table in ((train_uri, train), (val_uri, val)):
        _check_table(uri, table, len(class_names))
    if not_learned := sorted(_class_ids(val) - _class_ids(train)):
        names = ", ".join(class_names[class_id] for class_id in not_learned)
        _logger.warning(
            "warning: %s has boxes of classes that %s has none of: they cannot be learned, and "
            "their AP will be 0: %s",
            val_uri,
            train_uri,
            names,
        )
    sha256 = {"train": _sha256(train_file), "val": _sha256(val_file)}
    return TrainingData(train, val, tuple(class_names), sha256)


def _sha256(file: bytes) -> str:
    return hashlib.sha256(file).hexdigest()


def read_weights(uri: str | None) -> bytes | None:
    """The initial weights, if there are any; read once, for all workers at every start of theirs.

    Raises:
        InputError: they cannot be read.
    """
    return None if uri is None else read_bytes(uri)


def _class_ids(table: pa.Table) -> set[int]:
    """The classes that have boxes, crowds not counted."""
    class_ids, is_crowd = (pc.list_flatten(table[name]) for name in ("class_ids", "is_crowd"))
    return set(class_ids.filter(pc.invert(is_crowd)).to_pylist())


def _check_table(uri: str, table: pa.Table, num_classes: int) -> None:
    if not len(table):
        raise InputError(f"{uri} has no images: a table to learn from needs some")
    lengths = [pc.list_value_length(table[name]) for name in ("boxes", "class_ids", "is_crowd")]
    if not lengths[0].equals(lengths[1]) or not lengths[0].equals(lengths[2]):
        raise InputError(
            f"{uri} has rows whose boxes, class_ids and is_crowd differ in length: "
            "each box needs one of each"
        )
    boxes, class_ids, is_crowd = (
        pc.list_flatten(table[name]) for name in ("boxes", "class_ids", "is_crowd")
    )
    if pc.all(is_crowd, min_count=0).as_py():
        raise InputError(
            f"{uri} has no boxes, or only those of crowds, on its {len(table)} images: "
            "label some of them"
        )
    lowest, highest = pc.min_max(class_ids).as_py().values()
    if lowest < 0 or highest >= num_classes:
        raise InputError(
            f"{uri} has class ids from {lowest} to {highest}: its {num_classes} class names allow "
            f"0 to {num_classes - 1}"
        )
    if not pc.all(pc.is_finite(pc.list_flatten(boxes)), min_count=0).as_py():
        raise InputError(f"{uri} has boxes with NaN or infinite corners: remove them")


def refuse_passing_error(uri: str, error: ImageError) -> None:
    """Raises RunStoppedError for an error that may be over tomorrow.

    Without its image the run would go on with other batches than an unbroken one.
    """
    if error.kind in _PASSING:
        raise RunStoppedError(
            f"{uri} cannot be read now ({error.kind}: {error}): if it never can, leave it out of "
            "the table"
        ) from error


def refuse_another_size(size: tuple[int, int], size_in_table: tuple[int, int]) -> None:
    """Raises ImageError where boxes would not go with the pixels. Sizes are (width, height)."""
    if size != size_in_table:
        raise ImageError(
            ErrorKind.CHANGED,
            "the photo has {} x {} px and its boxes are for {} x {} px: resized since, or turned "
            "by EXIF, which the annotations do not know".format(*size, *size_in_table),
        )
