"""The one error that means: what you gave cannot be used."""


class InputError(ValueError):
    """Names what was given, the rule and a way out, in one sentence; a job exits with 2 on it."""
