"""What a labelling run depends on."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pipelines.detectors import FAIL, YOLOX
from pipelines.photos import ErrorKind
from yolox_core import check_input_size


@dataclass(frozen=True, kw_only=True)
class LabellingConfig:
    """Everything that one labelling run depends on."""

    table: str
    """Where the tables go: a local folder or an s3://bucket/prefix."""
    checkpoint: str
    """The detector's weights: a local path or an s3:// URI; ours, YOLOX's
    or that of bubbliiiing's yolox-pytorch; or an ONNX file of `yolox-ray export-model`."""
    source: str = ""
    """What to label: a local folder, an s3://bucket/prefix (every key that begins so), a glob in
    either, one photo; a Parquet or CSV file with a column image_uri, a .txt or .json list of names
    (relative to the list), or the manifest.json of an S3 Inventory."""
    include: tuple[str, ...] = ()
    """Only what matches one of these globs, for example [2026-*/**, '*.dat']; without a slash they
    are about the file's name. Without it: what has a photo's suffix, or none."""
    exclude: tuple[str, ...] = ()
    """Nothing that matches one of these globs."""
    all_files: bool = False
    """List every file, whatever its suffix. What is not listed is counted in the run's record."""
    incremental: bool = False
    """Skip what a complete run of this table has labelled with the same weights and settings, if
    its ETag (on a disk its time and size) is still the same."""
    retry_failed: str = ""
    """Instead of a source: the run of this table whose failed images are to be tried again."""
    retry_kinds: tuple[str, ...] = ()
    """With retry_failed: only images with these error kinds, for example [io_error, denied]."""
    detector: str = YOLOX
    """yolox, or package.module:Class of your own, which keeps to pipelines.detectors.ImageDetector
    and gets the checkpoint's bytes as they are."""
    runtime: Literal["auto", "onnxruntime", "torch"] = "auto"
    """What runs yolox: onnxruntime (on CPUs; a checkpoint is exported once) or torch. auto: that of
    the run that is gone on with; else torch on GPUs and onnxruntime without."""
    run: str | None = None
    """The run's name. Without it: the date and a fingerprint of the settings, and an unfinished
    run with the same settings is continued."""
    date: str | None = None
    """The partition the rows go to, YYYY-MM-DD. Without it: today (UTC)."""
    input_size: int | tuple[int, int] | None = None
    """Side, or [height, width], fed to the model, in pixels. Without it: the checkpoint's."""
    score_threshold: float = 0.01
    """Low on purpose: labels are filtered when they are queried, and a rerun costs GPU hours."""
    nms_threshold: float = 0.65
    """Of two boxes of one class that overlap by a larger IoU, the better one stays."""
    batch_size: int | None = None
    """Images in one forward pass. Without it: 16, or on a GPU as many as its memory takes, up to
    64."""
    num_actors: int | None = None
    """Detectors that run side by side. Without it: one per GPU, or one per core."""
    gpus_per_actor: float | None = None
    """Without it: 1 where Ray has GPUs, else 0."""
    min_actors: int = 1
    """With fewer detectors the run waits for the cluster to grow; with some of them it goes on, and
    takes in those that come later."""
    wait_timeout: float = 1800.0
    """Seconds with fewer than min_actors after which the run is stopped, with exit code 6."""
    images_per_part: int = 1024
    """Images in one file of the tables, fewer where they are large: what a crash can cost at most,
    per writer."""
    dry_run: bool = False
    """Label nothing but 200 images of the source, write nothing, and tell what the run would take:
    a table for people on stderr, JSON on stdout."""
    full_decode: bool = False
    """Decode large JPEGs in full. Without it: at a half or a quarter of their size, while neither
    side is smaller than the model is fed; a run that was begun in full goes on so."""
    truncated: Literal["fail", "label"] = "fail"
    """What becomes of a JPEG that was cut short: it fails, or the rows that are there are labelled,
    with their share in the column decoded_share. One that lacks only its end mark is whole."""
    max_pixels: int = 100_000_000
    """Larger images are refused from their header."""
    max_image_bytes: int = 256 * 1024 * 1024
    """Larger files are not fetched."""
    max_failed_share: float = 0.05
    """A finished run with a larger share of failed images makes the job exit with 3."""
    max_retries_per_image: float = 2.0
    """A run in which the storage makes more requests be repeated, on average, is stopped: it would
    turn the archive into failed rows."""
    image_timeout: float = 60.0
    """Seconds that one image may keep a detector busy; then its row says timed_out."""
    stall_timeout: float = 600.0
    """Seconds without a sign from any stage after which the run is stopped, with exit code 4."""

    def __post_init__(self) -> None:
        if bool(self.source) == bool(self.retry_failed):
            raise ValueError(
                f"source={self.source!r}, retry_failed={self.retry_failed!r}: give one of the two"
            )
        if self.incremental and self.retry_failed:
            raise ValueError("--incremental is for a source: failed images are never skipped")
        unknown = set(self.retry_kinds) - set(ErrorKind)
        if unknown or (self.retry_kinds and not self.retry_failed):
            raise ValueError(
                f"retry_kinds={list(self.retry_kinds)}: goes with --retry_failed, and each must be "
                f"one of {', '.join(ErrorKind)}"
            )
        for name in ("score_threshold", "nms_threshold", "max_failed_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: must lie between 0 and 1")
        for name in ("batch_size", "images_per_part", "max_pixels", "max_image_bytes"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        for name in ("max_retries_per_image", "image_timeout", "stall_timeout", "wait_timeout"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be above 0")
        if self.num_actors is not None and self.num_actors < 1:
            raise ValueError(f"num_actors={self.num_actors}: must be at least 1")
        if not 1 <= self.min_actors <= (self.num_actors or self.min_actors):
            raise ValueError(
                f"min_actors={self.min_actors}: must be at least 1, and at most num_actors="
                f"{self.num_actors}"
            )
        if self.gpus_per_actor is not None and self.gpus_per_actor < 0:
            raise ValueError(f"gpus_per_actor={self.gpus_per_actor}: must not be negative")
        if self.date is not None:
            _check_date(self.date)
        if self.detector != YOLOX and self.runtime != "auto":
            raise ValueError(f"runtime={self.runtime!r}: is for the detector {YOLOX} only")
        if self.detector != YOLOX and self.full_decode:
            raise ValueError(f"--full_decode is for the detector {YOLOX} only")
        if self.detector != YOLOX and self.truncated != FAIL:
            raise ValueError(
                f"truncated={self.truncated!r}: is for the detector {YOLOX} only; another is given "
                "the bytes as they are"
            )
        if self.runtime == "onnxruntime" and self.gpus_per_actor:
            raise ValueError(
                f"gpus_per_actor={self.gpus_per_actor:g} with runtime='onnxruntime', which runs on "
                "CPUs: give --runtime torch, or no GPUs"
            )
        if self.canvas_size is not None and self.detector == YOLOX:
            check_input_size(*self.canvas_size)

    @property
    def canvas_size(self) -> tuple[int, int] | None:
        """(height, width) fed to the model, in pixels; None for the checkpoint's."""
        size = self.input_size
        return (size, size) if isinstance(size, int) else size


def _check_date(date: str) -> None:
    """Raises ValueError unless `date` is YYYY-MM-DD."""
    try:
        datetime.strptime(date, "%Y-%m-%d")
    except ValueError as error:
        raise ValueError(f"date={date!r}: must be YYYY-MM-DD") from error
