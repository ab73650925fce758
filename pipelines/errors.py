"""The errors that a job tells in one sentence."""

import re


class InputError(ValueError):
    """Names what was given, the rule and a way out, in one sentence; a job exits with 2 on it."""


class RunStoppedError(RuntimeError):
    """A run cannot go on now. What it wrote is safe, and the same command goes on with the rest."""


class RunHeldError(InputError):
    """The run is being labelled by somebody else, who is alive."""


class ClusterTooSmallError(RunStoppedError):
    """The cluster has not given what a run needs in the time that it was given."""


class StalledError(RunStoppedError):
    """Nothing has moved for too long; says what each stage was doing."""


class TrainingDivergedError(RuntimeError):
    """The loss is no longer finite, and no step could mend it."""


def stopped_by_storage(error: Exception) -> RunStoppedError:
    """What it means for a run that its table cannot be read or written."""
    return RunStoppedError(f"the table cannot be read or written: {error}")


def sentence_in(error: Exception, *kinds: type[Exception]) -> str | None:
    """What an error of these kinds said in a process of Ray, which hands on no more than text."""
    names = "|".join(kind.__name__ for kind in kinds)
    told = re.search(rf"(?:{names}): (.+)", str(error))
    return told and told[1]
