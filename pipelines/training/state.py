"""Where a training run can go on: its newest whole states, in a local folder or on S3."""

import io
from typing import Any

import torch

from pipelines.errors import InputError
from pipelines.storage import STORAGE_ERRORS, Folder

STATES_KEPT = 2
"""So that one is left where the newest turns out to be damaged."""


class StateStore:
    """States of one run, named after what is done; each is written whole or not at all.

    A state is a dict of tensors and plain values: reading one cannot run code.
    """

    def __init__(self, output: Folder) -> None:
        self._folder = output.below("states")
        self._has_told = False

    def save(self, state: dict[str, Any], epoch: int, step: int) -> list[str]:
        """Keep a state of `epoch` whole epochs and `step` steps, and only the newest others.

        Returns:
            What is to be told of others that stay although they are old, once.
        """
        file = io.BytesIO()
        torch.save(state, file)
        self._folder.write(f"epoch-{epoch:05d}-step-{step:07d}.pt", file.getvalue())
        try:
            for name in self._folder.list()[:-STATES_KEPT]:
                self._folder.delete(name)
        except STORAGE_ERRORS as error:
            return self._told_once(error, len(file.getvalue()))
        return []

    def _told_once(self, error: Exception, size_bytes: int) -> list[str]:
        if self._has_told:
            return []
        self._has_told = True
        return [
            f"warning: states of before cannot be deleted from {self._folder.uri}, where each "
            f"takes {size_bytes / 1e6:.0f} MB: {error}: allow that, or delete them after the run"
        ]

    def newest(self) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest state that can be decoded, if any, and what is to be told of the others.

        Raises:
            InputError: there are states, and all are damaged.
            STORAGE_ERRORS: one cannot be read, which says nothing about what it holds.
        """
        notes = [
            f"{uri} was being written when the run was killed: left out"
            for uri in self._folder.unfinished()
        ]
        names = self._folder.list()
        for name in reversed(names):
            file = io.BytesIO(self._folder.read(name))
            try:
                # To the CPU first: the file names the GPU of the worker that wrote it.
                state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
            except Exception as error:  # what torch.load raises depends on which byte is wrong
                reason = type(error).__name__
                notes.append(f"{self._folder.uri_of(name)} is damaged ({reason}): left out")
            else:
                return state, notes
        if names:
            raise InputError(
                f"all {len(names)} states in {self._folder.uri} are damaged, and a run that starts "
                "anew would overwrite what is there: restore one of them, or give another output"
            )
        return None, notes
