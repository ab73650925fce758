"""From annotations of any format to a training table that holds nothing but what can be used."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from pipelines.datasets.annotations import Annotations
from pipelines.datasets.checks import checked_table
from pipelines.datasets.faults import Fault
from pipelines.datasets.formats.coco_sources import read_coco_source
from pipelines.datasets.formats.detections import read_detections
from pipelines.datasets.formats.label_studio import read_label_studio
from pipelines.datasets.formats.megadetector import read_megadetector
from pipelines.datasets.formats.recognition import Format, recognise
from pipelines.datasets.formats.voc import read_voc
from pipelines.datasets.formats.yolo import read_yolo
from pipelines.datasets.training_table import write_training_table
from pipelines.errors import InputError
from pipelines.storage import STORAGE_ERRORS, why, write_bytes

FAULTS_NAMED = 5
"""In an error message."""


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Which annotations to make a training table of."""

    source: str
    """COCO: the .json file, or a folder as Roboflow, CVAT or COCO itself lay it. Label Studio and
    MegaDetector: the .json file. VOC: the folder that holds Annotations/, ImageSets/ and
    JPEGImages/, or one with XML files beside the photos. YOLO: the data.yaml, obj.data or
    classes.txt, or its folder. Detections: the table that jobs.label wrote. Each a local path or
    s3://."""
    output: str
    """The training table to write (.parquet), a local path or s3://."""
    format: Format | None = None
    """Default: the format is told from the source."""
    images: str = ""
    """COCO, VOC, YOLO, Label Studio, MegaDetector: the folder or prefix of the photos. Default:
    they lie with the annotations."""
    split: str = ""
    """COCO and YOLO: train, val or test, or what the source calls it; not needed if it has one.
    VOC: a file of ImageSets/Main or a sub-folder; default: all annotations. Several are joined:
    train,val."""
    classes: str = ""
    """VOC, Label Studio: the class names in their order: RBC,WBC,Platelets. Default: all that the
    annotations of all splits have, in alphabetical order."""
    run: str = ""
    """Detections: default is the newest complete run."""
    min_score: float = 0.5
    """Boxes with a score (detections, MegaDetector, YOLO and COCO predictions): those of a lower
    one are left out."""
    corrections: str = ""
    """Detections: the corrections.json of a review of the run. What people said of a photo wins
    over what the model said, whatever --min_score; what they rejected is left out."""
    only_reviewed: bool = False
    """With --corrections: the other photos of the run, which nobody looked at, are left out."""
    keep_incomplete: bool = False
    """Keep images of which some annotation could not be read, and teach the model that nothing is
    there."""
    strict: bool = False
    """Write nothing if there is any fault, and exit with code 2."""

    def __post_init__(self) -> None:
        if not self.output.endswith(".parquet"):
            raise ValueError(f"output={self.output!r}: a training table ends in .parquet")
        if not 0 <= self.min_score <= 1:
            raise ValueError(f"min_score={self.min_score}: a score lies between 0 and 1")
        if self.only_reviewed and not self.corrections:
            raise ValueError("--only_reviewed goes with --corrections, which say what was reviewed")


@dataclass(frozen=True)
class Prepared:
    """A training table as it was written, and what was left out of it."""

    table: pa.Table
    faults: Sequence[Fault]
    faults_uri: str
    """A CSV file of all of them, with their places."""
    notes: Sequence[str]
    """What a person should know about the annotations, and what is no fault."""


def prepare(config: PrepareConfig) -> Prepared:
    """Read, check and write.

    Raises:
        InputError: the source cannot be read, no boxes are left to learn from, the output cannot
            be written, or there are faults and the config is strict. Nothing is written then.
    """
    try:
        annotations = _read(config).above(config.min_score)
        table, faults = checked_table(annotations, keep_incomplete=config.keep_incomplete)
    except STORAGE_ERRORS as error:
        place = getattr(error, "filename", None)
        reason = f"{place}: {why(error)}" if place else why(error)
        raise InputError(f"source={config.source!r} cannot be read: {reason}") from error
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
    return Prepared(table, faults, faults_uri, annotations.notes)


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


_FLAGS: dict[Format, set[str]] = {
    "coco": {"images", "split", "min_score"},
    "voc": {"images", "split", "classes"},
    "yolo": {"images", "split", "min_score"},
    "label_studio": {"images", "classes"},
    "megadetector": {"images", "min_score"},
    "detections": {"run", "min_score", "corrections", "only_reviewed"},
}
"""Those that only some formats have a use for."""


def _read(config: PrepareConfig) -> Annotations:
    source, images = config.source, config.images
    splits, classes = _listed(config.split), _listed(config.classes)
    source_format = config.format or recognise(source)
    _refuse_idle_flags(config, source_format)
    match source_format:
        case "coco":
            return read_coco_source(source, images, splits)
        case "voc":
            return read_voc(source, splits, classes, images)
        case "yolo":
            return read_yolo(source, splits, images)
        case "label_studio":
            return read_label_studio(source, images, classes)
        case "megadetector":
            return read_megadetector(source, images)
        case "detections":
            return read_detections(
                source, config.run, config.min_score, config.corrections, config.only_reviewed
            )


def _refuse_idle_flags(config: PrepareConfig, source_format: Format) -> None:
    idle = set().union(*_FLAGS.values()) - _FLAGS[source_format]
    for field in fields(config):
        if field.name in idle and getattr(config, field.name) != field.default:
            users = [name for name, flags in _FLAGS.items() if field.name in flags]
            raise InputError(
                f"--{field.name} is for {' and '.join(users)}, and {config.source} is read as "
                f"{source_format}: leave it out"
            )


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _named(faults: Sequence[Fault]) -> str:
    """How many faults, and the first ones in full."""
    if not faults:
        return "no faults"
    first = "; ".join(f"{fault.kind} at {fault.where}: {fault}" for fault in faults[:FAULTS_NAMED])
    more = "; …" if len(faults) > FAULTS_NAMED else ""
    return f"faults ({len(faults):,}), {first}{more}"
