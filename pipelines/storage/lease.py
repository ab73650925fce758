"""One writer: a run is held by one driver at a time, and a dead one does not keep it.

The lease is an object beside the run's record, made with a conditional write and rewritten every
few seconds. Who finds one watches it: if it does not change for a while, its holder is gone. No
clock is compared with another's.
"""

import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipelines.errors import RunHeldError, RunStoppedError
from pipelines.storage.folder import STORAGE_ERRORS, Folder
from pipelines.storage.s3 import RetryPolicy

RENEW_EVERY_S = 5.0
TAKE_OVER_AFTER_S = 30.0
"""A lease that has not changed for so long has no holder."""
_LOOK_EVERY_S = 1.0
_RETRIES = RetryPolicy(max_backoff_s=1, patience_s=8, connect_timeout_s=2, read_timeout_s=3)
"""A sign of life is of use only while it is fresh."""


class Lease:
    """Held from `acquire` to `release` or the end of a with statement, renewed by a thread."""

    def __init__(self, table: Folder, run: str) -> None:
        self._table = Folder(table.uri, _RETRIES)
        self._run = run
        self._name = lease_name(run)
        self._holder = {**_this_process(), "id": uuid.uuid4().hex}
        self._beat = 0
        self._written = b""
        self._lost_to: str | None = None
        self._done = threading.Event()
        self._renewing = threading.Thread(target=self._renew, name="lease", daemon=True)

    @classmethod
    def acquire(
        cls, table: Folder, run: str, say: Callable[[str], None] = lambda line: _say(line)
    ) -> Self:
        """Take the lease of a run, at once where nobody has it or its holder is dead.

        Where that cannot be known, the holder is watched for TAKE_OVER_AFTER_S first.

        Raises:
            RunHeldError: another driver holds it and is alive.
        """
        lease = cls(table, run)
        while not lease._take(say):
            pass  # it changed hands meanwhile
        lease._renewing.start()
        return lease

    def _take(self, say: Callable[[str], None]) -> bool:
        mine = self._next_beat()
        if self._table.create(self._name, mine):
            self._written = mine
            return True
        found = self._read()
        if found is None:
            return False
        if not _is_dead(_parse(found)):
            self._watch(found, say)
        if not self._table.replace(self._name, mine, found):
            return False
        self._written = mine
        return True

    def _watch(self, found: bytes, say: Callable[[str], None]) -> None:
        """Return when the lease has stayed as found, or is gone.

        Raises:
            RunHeldError: it was renewed.
        """
        say(
            f"run {self._run!r} is held by {_describe(_parse(found))}: "
            f"waiting {TAKE_OVER_AFTER_S:.0f} s for a sign of life before taking it over"
        )
        deadline = time.monotonic() + TAKE_OVER_AFTER_S
        while time.monotonic() < deadline:
            time.sleep(_LOOK_EVERY_S)
            now = self._read()
            if now is None:
                return
            if now != found:
                raise RunHeldError(
                    f"run {self._run!r} is being labelled by {_describe(_parse(now))}: "
                    "wait for it, stop it, or give another --run"
                )

    def check(self) -> None:
        """Raises RunStoppedError if another start has taken the run over."""
        if self._lost_to is not None:
            raise RunStoppedError(
                f"run {self._run!r} was taken over by {self._lost_to}, for this start had given no "
                f"sign of life for {TAKE_OVER_AFTER_S:.0f} s"
            )

    def release(self) -> None:
        """Give the run back; a lease that was lost is left to whoever has it."""
        self._done.set()
        self._renewing.join()
        try:
            if self._read() == self._written:
                self._table.delete(self._name)
        except STORAGE_ERRORS:
            pass  # whoever comes next waits for it to grow old

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def _renew(self) -> None:
        while not self._done.wait(RENEW_EVERY_S):
            try:
                beat = self._next_beat()
                if self._table.replace(self._name, beat, self._written):
                    self._written = beat
                    continue
                now = self._read()
            except STORAGE_ERRORS:
                continue  # the storage may come back before anybody takes the run over
            if now and _parse(now).get("id") == self._holder["id"]:
                self._written = now  # a beat of ours whose answer was lost
                continue
            self._lost_to = _describe(_parse(now)) if now else "nobody: its lease was deleted"
            return

    def _next_beat(self) -> bytes:
        self._beat += 1
        return json.dumps({**self._holder, "beat": self._beat}).encode()

    def _read(self) -> bytes | None:
        try:
            return self._table.read(self._name)
        except FileNotFoundError:
            return None


def lease_name(run: str) -> str:
    """Where the lease of a run lies in its table."""
    return f"runs/{run}.lease"


def holder_of(table: Folder, run: str) -> str | None:
    """Who holds a run, unless it is known to be dead; None where nobody does."""
    try:
        found = _parse(table.read(lease_name(run)))
    except FileNotFoundError:
        return None
    return None if _is_dead(found) else _describe(found)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parse(lease: bytes) -> Mapping[str, Any]:
    try:
        holder = json.loads(lease)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _describe(holder: Mapping[str, Any]) -> str:
    return f"process {holder.get('pid', 'unknown')} on {holder.get('host', 'an unknown machine')}"


def _this_process() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": _start_of(os.getpid()),
        "machine": _machine(),
    }


def _is_dead(holder: Mapping[str, Any]) -> bool:
    """Whether the holder is known to be dead: a process of this machine that is no more."""
    machine = _machine()
    if machine is None or holder.get("machine") != machine:
        return False
    return bool(_start_of(holder["pid"]) != holder["started"])


def _machine() -> str | None:
    """What has the same process ids as we: this boot and this container. None where unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _start_of(pid: int) -> str | None:
    """When a process was started, in the kernel's ticks: process ids are used again."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *fields = status.rpartition(")")[2].split()
    return None if state in "ZX" else fields[18]
