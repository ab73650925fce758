"""A real Ray head on this machine, as `ray start --head` makes one, with its token and its jobs."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from benchmarks.memory import descendants

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent

PATIENCE_S = 300


def free_port() -> int:
    """A port that nobody has; beyond those that Ray gives its workers."""
    while True:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port: int = found.getsockname()[1]
        if port > 20000:
            return port


class Head:
    """Started with a token, on ports of its own; it ends exactly the processes that it started."""

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        port: int | None = None,
        flags: Sequence[str] = ("--num-cpus=3",),
    ) -> None:
        self.port = port or free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.metrics_port = free_port()
        self.environment = {
            **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(16),
            "RAY_API_SERVER_ADDRESS": self.address,
            **environment,
        }
        self._folder, self._flags = folder, flags

    def start(self) -> Self:
        command = [str(BIN / "ray"), "start", "--head", "--block", "--port=0", *self._flags]
        command += [f"--dashboard-port={self.port}", f"--temp-dir={self._folder}"]
        command += [f"--metrics-export-port={self.metrics_port}", "--dashboard-agent-listen-port=0"]
        command += [f"--ray-client-server-port={free_port()}", "--object-store-memory=200000000"]
        command += ["--include-dashboard=true", "--disable-usage-stats"]
        with (self._folder / "head.log").open("a") as log:
            self._process = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "head.log").read_text()
            assert time.monotonic() < deadline, "the head does not answer"
            time.sleep(0.2)
        return self

    def _answers(self) -> bool:
        request = urllib.request.Request(f"{self.address}/api/version")
        request.add_header("Authorization", f"Bearer {self.environment['RAY_AUTH_TOKEN']}")
        try:
            return bool(urllib.request.urlopen(request, timeout=5).status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A command of this environment, as a user types it, to its end."""
        process = self.begin(*command, **environment)
        out, err = process.communicate(timeout=PATIENCE_S)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def begin(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        program, *rest = command
        return subprocess.Popen(
            [str(BIN / program), *rest],
            cwd=ROOT,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def metrics(self, until: str) -> str:
        """What Prometheus would scrape, once it has a metric of this name."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            url = f"http://127.0.0.1:{self.metrics_port}/metrics"
            text: str = urllib.request.urlopen(url, timeout=30).read().decode()
            if until in text:
                return text
            assert time.monotonic() < deadline, text
            time.sleep(0.5)

    def kill(self) -> None:
        """As a machine that is lost: every process of it at once."""
        for pid in list(descendants(self._process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(PATIENCE_S)
