"""What a training run depends on, and what a resumed one must share with it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipelines import storage
from pipelines.errors import InputError
from pipelines.storage import Folder
from pipelines.training.data import TrainingData
from pipelines.training.recipe import Recipe

SETTINGS = "training.json"

_SHA256 = "sha256"
"""Of the tables' files; runs that were begun until 2026-11-27 have none."""

_WORDS_OF_BEFORE = {
    "seed": "yolox_pytorch",
    "seed_cosine": "yolox_pytorch_cosine",
    "seed_step": "yolox_pytorch_step",
}
"""What runs that were begun until 2026-11-27 call the values of `rule` and `schedule`."""

_MAY_DIFFER = (
    *("output", "num_workers", "use_gpu", "wait_timeout"),
    *("max_cache_bytes", "cache_dir", "max_disk_bytes", "publish", "preview", "mlflow"),
)
"""What a resumed run may be given anew; the workers are counted when Ray has started."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Recipe):
    """Everything that one training run depends on."""

    train: str
    """The training table (Parquet) to learn from: a local path or an s3:// URI."""
    val: str
    """The training table to validate on, with the same class names."""
    output: str
    """A local folder or an s3://bucket/prefix for the checkpoints best.pth and last.pth,
    best.onnx, metrics, curves and what a resume needs."""
    initial_weights: str | None = None
    """A checkpoint to fine-tune: ours, YOLOX's
    or that of bubbliiiing's yolox-pytorch. Without it: from scratch."""
    num_workers: int | None = None
    """Processes that train side by side. Without it: one per GPU, or one on CPUs."""
    use_gpu: bool | None = None
    """Whether each worker gets a GPU, also one that the cluster does not have yet. Without it:
    where Ray has GPUs."""
    wait_timeout: float = 1800.0
    """Seconds that the run waits for a cluster to have room for its workers; then exit code 6."""
    max_cache_bytes: int = 4 * 1024**3
    """Decoded images that each worker keeps in memory; further ones are decoded in every epoch."""
    cache_dir: str | None = None
    """A folder on each machine's disk in which its workers keep what they fetch from S3, for later
    epochs and other trainings. Without it: yolox-ray/photos in the user's cache folder."""
    max_disk_bytes: int | None = None
    """The most that the photos in it may take; 0: none are kept. Without it: what leaves a fifth of
    the disk free. For new ones, those go that nobody has used for an hour."""
    publish: bool = False
    """Whether the best weights are also written as safetensors and JSON, to output/published."""
    mlflow: str | None = None
    """An MLflow tracking server that shows settings, epochs, pictures and weights, for example
    http://localhost:5000; MLFLOW_EXPERIMENT_NAME says where. Needs the extra mlflow."""
    preview: str | None = None
    """Instead of training: a PNG file for a picture of one augmented batch and its boxes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_workers is not None and self.num_workers < 1:
            raise ValueError(f"num_workers={self.num_workers}: must be at least 1")
        if self.wait_timeout <= 0:
            raise ValueError(f"wait_timeout={self.wait_timeout}: must be above 0")
        if self.max_cache_bytes < 0:
            raise ValueError(f"max_cache_bytes={self.max_cache_bytes}: must not be negative")
        if self.max_disk_bytes is not None and self.max_disk_bytes < 0:
            raise ValueError(
                f"max_disk_bytes={self.max_disk_bytes}: must not be negative; 0 keeps no photos"
            )
        if self.mlflow and find_spec("mlflow") is None:
            raise ValueError(
                "mlflow was given, and MLflow is not installed here: pip install "
                "'yolox-ray[mlflow]', or leave --mlflow out"
            )
        if self.cache_dir is not None:
            _check_cache_dir(self.cache_dir)


def _check_cache_dir(cache_dir: str) -> None:
    """Raises ValueError for what cannot be a folder on a disk."""
    if storage.is_s3(cache_dir) or Path(storage.normalise_uri(cache_dir)).is_file():
        raise ValueError(
            f"cache_dir={cache_dir!r}: must be a folder on a disk of the machines that train, for "
            "example /mnt/photos"
        )


@contextmanager
def output_errors_told(config: TrainingConfig) -> Iterator[None]:
    """Make the storage's errors an InputError that names the output."""
    try:
        yield
    except storage.STORAGE_ERRORS as error:
        raise InputError(
            f"output={config.output!r} cannot be used: {error}: give a place that can be listed, "
            "read and written"
        ) from error


def lasting_settings(config: TrainingConfig) -> dict[str, Any]:
    """What a resumed run must be given again: all that the weights depend on, but the workers."""
    return {name: value for name, value in asdict(config).items() if name not in _MAY_DIFFER}


def settings_json(config: TrainingConfig, data: TrainingData, num_workers: int) -> bytes:
    """What a resumed run must have too, as JSON."""
    of_data = {"images": len(data.train), "class_names": data.class_names, _SHA256: data.sha256}
    settings = lasting_settings(config) | of_data | {"workers": num_workers}
    return json.dumps(settings, indent=2).encode()


def refuse_other_settings(
    output: Folder, config: TrainingConfig, data: TrainingData, of_state: str | None
) -> None:
    """Raises InputError where the output was begun with other settings or other data.

    Args:
        of_state: the settings_json of the state to go on from, which may be a copy of another run.
    """
    begun = [output.read(SETTINGS).decode()] if output.exists(SETTINGS) else []
    for text in begun if of_state is None else [*begun, of_state]:
        before = _in_words_of_today(json.loads(text))
        now = json.loads(settings_json(config, data, before["workers"]))
        _refuse_edited_tables(output, before, now)
        _refuse_differing(output, before, now)


def _in_words_of_today(settings: dict[str, Any]) -> dict[str, Any]:
    words = {name: settings[name] for name in ("rule", "schedule") if name in settings}
    return settings | {name: _WORDS_OF_BEFORE.get(word, word) for name, word in words.items()}


def _refuse_edited_tables(output: Folder, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises InputError where a table has other bytes than before, at the same path."""
    sha256 = before.get(_SHA256, now[_SHA256])
    names = [name for name in now[_SHA256] if now[name] == before[name]]
    edited = [now[name] for name in names if now[_SHA256][name] != sha256[name]]
    if edited:
        raise InputError(
            f"{' and '.join(dict.fromkeys(edited))} changed since the run in output={output.uri!r} "
            "was begun: give another --output to train on what is there now, or put back what was "
            "there to go on with that run"
        )


def _refuse_differing(output: Folder, before: dict[str, Any], now: dict[str, Any]) -> None:
    differing = [name for name in now if name != _SHA256 and now[name] != before.get(name)]
    if differing:
        changes = ", ".join(f"{name} {before.get(name)} -> {now[name]}" for name in differing)
        raise InputError(
            f"output={output.uri!r} holds a run with other settings ({changes}): give another "
            "folder, or the old settings to go on with that run"
        )


def refuse_other_workers(output: Folder, num_workers: int) -> None:
    """Raises InputError where the run was begun with another number of workers."""
    if not output.exists(SETTINGS):
        return
    before = json.loads(output.read(SETTINGS))["workers"]
    if before != num_workers:
        raise InputError(
            f"output={output.uri!r} holds a run with {before} workers, and Ray would now start "
            f"{num_workers}, which see other images: give --num_workers {before}, or another folder"
        )
