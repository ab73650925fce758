"""submit(): a job's command to a cluster, its log to this terminal, its exit code as ours."""

import asyncio
import logging
import os
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import aiohttp

from pipelines import logs
from pipelines.errors import InputError, RunStoppedError
from pipelines.submission.bundle import Bundle, bundled
from pipelines.submission.config import SubmitConfig
from pipelines.submission.names import base_name, is_attempt, next_name
from pipelines.submission.progress import JobProgress
from pipelines.tables import runs

TRY_AGAIN_AFTER = (1, 4)
"""Exit codes of a run that stopped before its end, and that the same command goes on with."""
KILLED = (-9, 137)
"""By SIGKILL: of memory, or with its node."""
EXIT_STOPPED = 143
"""What a job has that `ray job stop` has ended."""
EXIT_LOST = 1
LOST_AFTER_S = 600.0
"""A head that is started again needs minutes; after this a cluster that does not answer is lost."""
_LOOK_EVERY_S = 2.0

_TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
"""They tell of each package that is made and each connection that is closed."""

_OF_THE_JOB = {
    # Of a run that is stopped: Ray would kill after 3 s, before it has said how to go on.
    "RAY_JOB_STOP_WAIT_TIME_S": "30",
}


def submit(config: SubmitConfig, job: Sequence[str]) -> int:
    """Submit a job; with `wait`, follow it to its end, over as many attempts as it may have.

    Args:
        job: its name and its flags.

    Returns:
        The exit code of the job; 0 without `wait`.

    Raises:
        InputError: no cluster answers, it knows another token, or the same job runs there already.
        RunStoppedError: it no longer answers, and has not for `LOST_AFTER_S`.
    """
    client, base = _connect(config.address), base_name(job)
    with bundled(job, config.files) as bundle:
        for attempt in range(config.retries + 1):
            name = _submit(client, base, bundle, config)
            if not config.wait:
                return 0
            code = _follow(client, name)
            if code not in (*TRY_AGAIN_AFTER, *KILLED, None) or attempt == config.retries:
                break
            _say(f"{name} {_how(code)}: submitting it again, {config.retries - attempt} left")
    return EXIT_LOST if code is None else code


def _connect(address: str) -> Any:
    """A JobSubmissionClient of a cluster that answers and knows us."""
    # Here: a second that a mistake in the flags need not wait.
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        os.environ.pop(name, None)  # for Ray they win over the address that it is given
    try:
        client = JobSubmissionClient(address)
        client.get_version()
    except AuthenticationError as error:
        raise InputError(
            f"address={address!r} refuses the token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to "
            "what the cluster was started with"
        ) from error
    except Exception as error:  # whatever may lie between here and there
        raise InputError(
            f"address={address!r} does not answer as a Ray dashboard: look whether the head runs "
            "there, and whether its port 8265 is forwarded to here"
        ) from error
    return client


def _submit(client: Any, base: str, bundle: Bundle, config: SubmitConfig) -> str:
    """Submit the next attempt; its name.

    Raises:
        InputError: an earlier one has not ended.
    """
    entrypoint = shlex.join(["python", "-m", f"jobs.{bundle.job[0]}", *bundle.job[1:]])
    variables = {"YOLOX_RAY_CODE_VERSION": runs.code_version(), **_OF_THE_JOB}
    variables |= {logs.VARIABLE: logs.JSON} if config.json_log else {}
    try:
        name = next_name(base, _ended_attempts(client, base))
        client.submit_job(
            entrypoint=entrypoint,
            submission_id=name,
            runtime_env={"working_dir": str(bundle.folder), "env_vars": variables | config.env},
        )
    except RuntimeError as error:
        if "already exists" in str(error):  # by somebody who was faster
            raise _already_runs(name) from error
        raise
    except OSError as error:
        raise _unreachable(config.address) from error
    _say(f"submitted {name} with {bundle.size_bytes / 1e6:.1f} MB of code to {config.address}")
    if not config.wait:
        _say(f"follow it: ray job logs --follow {name}; stop it: ray job stop {name}")
    return name


def _ended_attempts(client: Any, base: str) -> list[str]:
    """Raises InputError where one of them has not ended."""
    attempts = [job for job in client.list_jobs() if is_attempt(job.submission_id or "", base)]
    for job in attempts:
        if not job.status.is_terminal():
            raise _already_runs(job.submission_id)
    return [job.submission_id for job in attempts]


def _unreachable(address: str) -> RunStoppedError:
    return RunStoppedError(
        f"{address} no longer answers: look whether its head runs; the same command goes on"
    )


def _already_runs(name: str) -> InputError:
    return InputError(
        f"{name} runs already: follow it with ray job logs --follow {name}, or stop it with "
        f"ray job stop {name}"
    )


def _follow(client: Any, name: str) -> int | None:
    """Print a job's log until it has ended; its exit code, None where the cluster has lost it."""
    with JobProgress() as progress:
        return _followed(client, name, _Log(client, name, progress))


def _followed(client: Any, name: str, log: "_Log") -> int | None:
    answered = time.monotonic()
    while time.monotonic() - answered < LOST_AFTER_S:
        with suppress(aiohttp.ClientError, RuntimeError, OSError):  # the next lines find out why
            asyncio.run(log.follow())
        try:
            info = client.get_job_info(name)
        except RuntimeError as error:
            if "status code 404" in str(error):
                return None  # another head, which has never heard of it
        except OSError:  # nobody there, or not yet
            pass
        else:
            answered = time.monotonic()
            if info.status.is_terminal():
                return _exit_code(info)
        time.sleep(_LOOK_EVERY_S)
    raise _unreachable(client.get_address())


class _Log:
    """A job's log, of which each character is shown once, however often it is asked for."""

    def __init__(self, client: Any, name: str, progress: JobProgress) -> None:
        self._client, self._name, self._progress, self._shown = client, name, progress, 0

    async def follow(self) -> None:
        """Show what is new, until the job has ended or the connection."""
        seen = 0
        async for text in self._client.tail_job_logs(self._name):
            self._progress.show(text[max(0, self._shown - seen) :])
            seen += len(text)
            self._shown = max(self._shown, seen)


def _exit_code(info: Any) -> int | None:
    if info.status == "STOPPED":
        return EXIT_STOPPED
    code: int | None = info.driver_exit_code
    return code


def _how(code: int | None) -> str:
    return "was lost with its cluster" if code is None else f"ended with exit code {code}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
