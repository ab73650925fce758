r"""Send a job to a Ray cluster, follow it there, and submit it again where it stopped.

yolox-ray submit --address http://head:8265 --wait --retries 3 -- \
    label --source s3://bucket/photos/ --table s3://bucket/labels --checkpoint s3://bucket/s.pth

What stands after -- is the job with its flags, as on a laptop. The code of this machine travels,
and nothing else: photos, weights and tables are what the cluster can reach. The same job is refused
while it runs. Exit code with --wait: that of the job; Ctrl-C leaves the job running. Exit code 2:
nothing was submitted. Where the cluster asks for a token: RAY_AUTH_MODE=token and RAY_AUTH_TOKEN.
"""

import sys
from collections.abc import Sequence

from jobs.__main__ import purposes, refuse_unknown
from jobs.cli import exit_on_input_error, parse
from pipelines import submission
from pipelines.errors import InputError, RunStoppedError

EXIT_STOPPED = 1

NOT_FOR_A_CLUSTER = ("submit", "demo")


@exit_on_input_error
def main() -> None:
    own, job = _split(sys.argv[1:])
    config = parse(submission.SubmitConfig, __doc__, args=own)
    _check_job(job)
    try:
        sys.exit(submission.submit(config, job))
    except RunStoppedError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_STOPPED)
    except KeyboardInterrupt:
        print("the job goes on: ray job list shows it", file=sys.stderr)
        sys.exit(130)


def _split(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """What stands before `--` and after it."""
    where = list(words).index("--") if "--" in words else len(words)
    return words[:where], words[where + 1 :]


def _check_job(job: Sequence[str]) -> None:
    jobs = [name for name in purposes() if name not in NOT_FOR_A_CLUSTER]
    if not job:
        raise InputError(f"no job: give one after --, with its flags; there are {', '.join(jobs)}")
    refuse_unknown(job[0], jobs)


if __name__ == "__main__":
    main()
