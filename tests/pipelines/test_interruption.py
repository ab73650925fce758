import signal
import subprocess
import sys

import pytest

from pipelines import interruption

IN_A_QUERY = """
import os, signal, threading
import duckdb
from pipelines import interruption
from pipelines.labelling.attempt import _explained

duckdb.sql("SELECT 1").fetchall()  # what the first query imports is no part of this
duckdb.sql("SET enable_progress_bar = false")  # which would be printed among the answers
threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT]).start()
with interruption.listening():
    try:
        duckdb.sql("SELECT count(*) FROM range(1500000000) WHERE range % 7 = 3").fetchall()
        interruption.check()
    except BaseException as error:
        print(interruption.asked_by().name, type(_explained(error)).__name__)
"""

IN_WHAT_NEVER_ENDS = """
import os, signal, time
from pipelines import interruption

interruption.GRACE_S = 0.5
with interruption.listening():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        time.sleep(600)  # a storage that does not answer
"""


def _run(script: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_a_run_that_is_interrupted_in_a_library_stops_whatever_that_makes_of_it() -> None:
    """DuckDB raises a RuntimeError, or runs its query to the end as if nothing had come."""
    told = _run(IN_A_QUERY)
    assert told.stdout.split() == ["SIGINT", "Interrupted"], told.stderr


def test_what_cannot_be_written_down_in_time_ends_all_the_same() -> None:
    ended = _run(IN_WHAT_NEVER_ENDS)
    assert ended.returncode == 128 + signal.SIGTERM
    assert "stopped by SIGTERM" in ended.stderr
    assert "the same command goes on" in ended.stderr


def test_afterwards_the_signals_do_what_they_did_before() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(interruption.Interrupted), interruption.listening():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
    assert interruption.asked_by() is None
