"""Parts of a benchmark that measure nothing. Apart from tests, whose imports take seconds."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator

from benchmarks.on_gpu.sizes import Result, Sizes, Skipped


def good(sizes: Sizes) -> Iterator[Result]:
    yield {"device": sizes.device}


def raising(sizes: Sizes) -> Iterator[Result]:
    yield {"before": 1}
    raise RuntimeError("out of luck")


def skipped(sizes: Sizes) -> Iterator[Result]:
    raise Skipped("there is no moon here")
    yield {}


def dying(sizes: Sizes) -> Iterator[Result]:
    yield {"before": 1}
    os.kill(os.getpid(), signal.SIGKILL)


def endless(sizes: Sizes) -> Iterator[Result]:
    child = subprocess.Popen(["sleep", "600"])
    yield {"pids": [os.getpid(), child.pid]}
    time.sleep(600)
