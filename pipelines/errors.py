"""The errors that a job tells in one sentence."""


class InputError(ValueError):
    """Names what was given, the rule and a way out, in one sentence; a job exits with 2 on it."""


class RunStoppedError(RuntimeError):
    """A run cannot go on now. What it wrote is safe, and the same command goes on with the rest."""


class StalledError(RunStoppedError):
    """Nothing has moved for too long; says what each stage was doing."""
