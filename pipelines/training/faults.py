"""What goes wrong in workers: what may pass is tried again, what would come back ends the run."""

from collections.abc import Iterator
from contextlib import contextmanager

import ray.train

from pipelines import storage
from pipelines.errors import InputError, RunStoppedError, TrainingDivergedError
from pipelines.storage import Folder, s3

FOR_GOOD = (InputError, TrainingDivergedError)
"""Errors of a worker that would come back whenever it is started again."""


@contextmanager
def output_errors_sorted(output: Folder) -> Iterator[None]:
    """Make the storage's errors one of ours: RunStoppedError if it may pass, else InputError."""
    try:
        yield
    except storage.STORAGE_ERRORS as error:
        told = f"output={output.uri!r} cannot be read or written: {error}"
        if s3.may_pass(error) and not isinstance(error, PermissionError):
            raise RunStoppedError(told) from error
        raise InputError(f"{told}: mend that, and the same command goes on") from error


def ours_in(error: ray.train.TrainingFailedError) -> Exception:
    """What to raise for an error of Ray Train: one of ours that it carries, or else itself."""
    if isinstance(error, ray.train.ControllerError):
        carried = [error.controller_failure]
    elif isinstance(error, ray.train.WorkerGroupError):
        carried = list(error.worker_failures.values())
    else:
        carried = []
    return next((one for one in carried if isinstance(one, (*FOR_GOOD, RunStoppedError))), error)
