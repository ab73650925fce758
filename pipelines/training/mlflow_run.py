"""A training as a run of MLflow: its settings, each epoch's numbers, pictures and weights.

MLflow is a way to look on. Once the training has begun, a server that is away costs a warning, and
what it has missed is sent after a later epoch. The same command goes on with the same MLflow run.
"""

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import InputError
from pipelines.storage import Folder
from pipelines.training.metrics import EpochRow

if TYPE_CHECKING:
    from mlflow import MlflowClient

RUN_ID = "mlflow_run_id.txt"
"""Beside the checkpoints: which run of MLflow this training is."""

EXPERIMENT = "yolox-ray"
"""Where MLFLOW_EXPERIMENT_NAME says nothing else."""

_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""MLflow by itself would wait for minutes."""


def refuse_unreachable(uri: str) -> None:
    """Raises InputError unless a tracking server, or a store of another kind, answers."""
    try:
        _client(uri).get_experiment_by_name(EXPERIMENT)
    except Exception as error:  # whatever a store of any kind raises
        raise InputError(
            f"mlflow={_without_password(uri)!r} cannot be used: {_without_password(error)}: give "
            "the address of a tracking server, for example http://localhost:5000, or leave "
            "--mlflow out"
        ) from error


@contextmanager
def followed(
    uri: str | None,
    settings: Mapping[str, Any],
    output: Folder,
    rows: Sequence[EpochRow],
    files: Sequence[str],
) -> Iterator[Callable[[EpochRow], None]]:
    """Within it, MLflow is told of each epoch by what this yields; without a URI of none.

    Args:
        rows: of the epochs that are done.
        files: of the output, sent at the end as far as they are there.
    """
    if uri is None:
        yield lambda row: None
        return
    run = MlflowRun(uri, settings, output)
    run.add(*rows)
    try:
        yield run.add
    except BaseException:
        run.close("FAILED")
        raise
    run.send_files(files)
    run.close("FINISHED")


class MlflowRun:
    """Sends what a training comes to, from its driver; what fails is a warning."""

    def __init__(self, uri: str, settings: Mapping[str, Any], output: Folder) -> None:
        self._client = _client(uri)
        self._settings = settings
        self._output = output
        self._waiting: list[EpochRow] = []
        self._run_id = ""

    def _open(self) -> None:
        """Begin a run, or go on with the one that the output names."""
        if not self._run_id:
            run_id = _run_of(self._client, self._output) or self._begin()
            self._client.update_run(run_id, status="RUNNING")
            self._sent = {one.step for one in self._client.get_metric_history(run_id, "loss")}
            self._run_id = run_id

    def _begin(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        experiment = self._client.get_experiment_by_name(name)
        experiment_id = (
            experiment.experiment_id if experiment else self._client.create_experiment(name)
        )
        run = self._client.create_run(experiment_id, run_name=self._output.uri.rpartition("/")[2])
        run_id: str = run.info.run_id
        for parameter, value in self._settings.items():
            self._client.log_param(run_id, parameter, value)
        self._output.write(RUN_ID, run_id.encode())
        return run_id

    def add(self, *rows: EpochRow) -> None:
        """Send the numbers of epochs that MLflow does not have yet, earlier ones too."""
        self._waiting += rows
        with _failing_softly():
            self._open()
            while self._waiting:
                if self._waiting[0].epoch not in self._sent:
                    self._send(self._waiting[0])
                self._sent.add(self._waiting.pop(0).epoch)

    def _send(self, row: EpochRow) -> None:
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        numbers = {name: value for name, value in asdict(row).items() if value is not None}
        step = numbers.pop("epoch")
        metrics = [Metric(name, value, now_ms, step) for name, value in numbers.items()]
        self._client.log_batch(self._run_id, metrics)

    def send_files(self, names: Sequence[str]) -> None:
        """Send those of the output's files that are there."""
        with _failing_softly(), tempfile.TemporaryDirectory() as folder:
            for name in names:
                if self._output.exists(name):
                    Path(folder, name).write_bytes(self._output.read(name))
            self._open()
            self._client.log_artifacts(self._run_id, folder)

    def close(self, status: str) -> None:
        """Say how it ended; the same command may still go on with it."""
        with _failing_softly():
            self._open()
            self._client.set_terminated(self._run_id, status)


def _client(uri: str) -> "MlflowClient":
    from mlflow import MlflowClient  # here, for it is an optional extra

    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    return MlflowClient(uri)


def _run_of(client: "MlflowClient", output: Folder) -> str | None:
    """The id of the run that was begun before; None if there is none, or it is gone."""
    from mlflow.exceptions import MlflowException

    if not output.exists(RUN_ID):
        return None
    run_id = output.read(RUN_ID).decode()
    try:
        client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return run_id


@contextmanager
def _failing_softly() -> Iterator[None]:
    """Make whatever goes wrong with MLflow a warning."""
    try:
        yield
    except Exception as error:
        reason = _without_password(error)
        print(f"warning: MLflow does not take what it is sent: {reason}", flush=True)


def _without_password(text: object) -> str:
    """In one line, and without the `user:password@` of a URI in it."""
    return re.sub(r"//[^/@\s]*@", "//", " ".join(str(text).split()))
