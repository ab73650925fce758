"""From annotations of any format to a training table that holds nothing but what can be used."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from pipelines.datasets.annotations import Annotations
from pipelines.datasets.checks import checked_table
from pipelines.datasets.coco import parse_coco
from pipelines.datasets.detections import read_detections
from pipelines.datasets.faults import Fault
from pipelines.datasets.training_table import write_training_table
from pipelines.datasets.voc import ANNOTATIONS, read_voc
from pipelines.datasets.yolo import DATA_YAML, YAML_SUFFIXES, read_yolo
from pipelines.errors import InputError
from pipelines.storage import STORAGE_ERRORS, Folder, write_bytes

Format = Literal["coco", "voc", "yolo", "detections"]

FAULTS_NAMED = 5
"""In an error message."""


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Which annotations to make a training table of."""

    source: str
    """COCO: the .json file. VOC: the folder that holds Annotations/, ImageSets/ and JPEGImages/.
    YOLO: the data.yaml or its folder. Detections: the table that jobs.label wrote. Each a local
    path or s3://."""
    output: str
    """The training table to write (.parquet), a local path or s3://."""
    format: Format | None = None
    """Default: the format is told from the source."""
    images: str = ""
    """COCO: the folder or prefix that the file names are relative to."""
    split: str = ""
    """VOC: a file of ImageSets/Main; default: all annotations. YOLO: train, val or test. Several
    are joined: train,val."""
    classes: str = ""
    """VOC: the class names in their order: RBC,WBC,Platelets. Default: all that the annotations
    of all splits have, in alphabetical order."""
    run: str = ""
    """Detections: default is the newest complete run."""
    min_score: float = 0.5
    """Detections: those of a lower score are left out."""
    strict: bool = False
    """Write nothing if there is any fault, and exit with code 2."""

    def __post_init__(self) -> None:
        if not self.output.endswith(".parquet"):
            raise ValueError(f"output={self.output!r}: a training table ends in .parquet")
        if not 0 <= self.min_score <= 1:
            raise ValueError(f"min_score={self.min_score}: a score lies between 0 and 1")


@dataclass(frozen=True)
class Prepared:
    """A training table as it was written, and what was left out of it."""

    table: pa.Table
    faults: Sequence[Fault]
    faults_uri: str
    """A CSV file of all of them, with their places."""


def prepare(config: PrepareConfig) -> Prepared:
    """Read, check and write.

    Raises:
        InputError: the source cannot be read, no boxes are left to learn from, the output cannot
            be written, or there are faults and the config is strict. Nothing is written then.
    """
    try:
        table, faults = checked_table(_read(config))
    except STORAGE_ERRORS as error:
        raise InputError(f"source={config.source!r} cannot be read: {error}") from error
    if config.strict and faults:
        raise InputError(
            f"{config.source} has {_named(faults)}: correct them, or leave them out of the table "
            "by leaving out --strict"
        )
    if pc.all(pc.list_flatten(table["is_crowd"]), min_count=0).as_py():
        raise InputError(
            f"{config.source} has no boxes to learn from, crowds not counted: "
            f"{len(table)} usable images, {_named(faults)}"
        )
    # Before the table, beside which no list of an earlier one is ever left.
    faults_uri = config.output.removesuffix(".parquet") + ".faults.csv"
    _write_faults(faults_uri, faults)
    write_training_table(config.output, table)
    return Prepared(table, faults, faults_uri)


def _write_faults(uri: str, faults: Sequence[Fault]) -> None:
    rows = {
        "kind": [str(fault.kind) for fault in faults],
        "where": [fault.where for fault in faults],
        "what": [str(fault) for fault in faults],
    }
    schema = pa.schema([(name, pa.string()) for name in rows])
    sink = pa.BufferOutputStream()
    pacsv.write_csv(pa.table(rows, schema), sink)
    write_bytes(uri, sink.getvalue().to_pybytes())


def recognise(source: str) -> Format:
    """The format of a source, from its name or from what it holds.

    Raises:
        InputError: it is none of them.
    """
    if source.endswith(".json"):
        return "coco"
    folder = Folder(source)
    if source.endswith(YAML_SUFFIXES) or folder.exists(DATA_YAML):
        return "yolo"
    if folder.list(ANNOTATIONS):
        return "voc"
    if folder.list("runs"):
        return "detections"
    raise InputError(
        f"source={source!r} is none of COCO (a .json file), VOC (a folder with {ANNOTATIONS}/), "
        f"YOLO ({DATA_YAML} or its folder) and a table of jobs.label (a folder with runs/): "
        f"is the path right? --format {'|'.join(get_args(Format))} skips this look"
    )


_FLAGS: dict[Format, set[str]] = {
    "coco": {"images"},
    "voc": {"split", "classes"},
    "yolo": {"split"},
    "detections": {"run", "min_score"},
}
"""Those that only some formats have a use for."""


def _read(config: PrepareConfig) -> Annotations:
    source_format = config.format or recognise(config.source)
    _refuse_idle_flags(config, source_format)
    match source_format:
        case "coco":
            return _read_coco(config.source, config.images)
        case "voc":
            return read_voc(config.source, _listed(config.split), _listed(config.classes))
        case "yolo":
            return _read_yolo(config.source, _listed(config.split))
        case "detections":
            return read_detections(config.source, config.run, config.min_score)


def _refuse_idle_flags(config: PrepareConfig, source_format: Format) -> None:
    idle = set().union(*_FLAGS.values()) - _FLAGS[source_format]
    for field in fields(config):
        if field.name in idle and getattr(config, field.name) != field.default:
            users = [name for name, flags in _FLAGS.items() if field.name in flags]
            raise InputError(
                f"--{field.name} is for {' and '.join(users)}, and {config.source} is read as "
                f"{source_format}: leave it out"
            )


def _read_coco(source: str, images: str) -> Annotations:
    if not images:
        raise InputError("COCO annotations need --images, the folder of their photos")
    folder = Folder(images)
    photo_uris = {folder.uri_of(name) for name in folder.list()}
    if not photo_uris:
        raise InputError(f"images={images!r} holds no photos: give the folder of the photos")
    return replace(parse_coco(source, images), photo_uris=photo_uris)


def _read_yolo(source: str, splits: Sequence[str]) -> Annotations:
    if not splits:
        raise InputError("YOLO annotations need --split: train, val or test")
    return read_yolo(source, splits)


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _named(faults: Sequence[Fault]) -> str:
    """How many faults, and the first ones in full."""
    if not faults:
        return "no faults"
    first = "; ".join(f"{fault.kind} at {fault.where}: {fault}" for fault in faults[:FAULTS_NAMED])
    more = "; …" if len(faults) > FAULTS_NAMED else ""
    return f"faults ({len(faults):,}), {first}{more}"
