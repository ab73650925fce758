r"""Label every image of an archive and write what was seen as Parquet tables.

python -m jobs.label --source s3://bucket/photos/ --table s3://bucket/labels \
    --checkpoint s3://bucket/weights/yolox_s.pth

The same command again goes on where a run was killed or stopped. Exit codes: 0 all rows are
written; 1 the run stopped before its end; 2 bad input, nothing was started; 3 all rows are written
and more than --max_failed_share of them failed; 4 nothing moved for --stall_timeout seconds; 5 the
run is being labelled by somebody else; 6 the cluster had fewer than --min_actors detectors for
--wait_timeout seconds; 130 and 143 stopped by Ctrl-C and SIGTERM.
"""

import sys
from typing import NoReturn

from jobs.cli import exit_on_input_error, parse
from pipelines import cluster, interruption, labelling
from pipelines.errors import ClusterTooSmallError, RunHeldError, RunStoppedError, StalledError

EXIT_STOPPED = 1
EXIT_TOO_MANY_FAILED = 3
EXIT_STALLED = 4
EXIT_HELD = 5
EXIT_CLUSTER_TOO_SMALL = 6

_GOES_ON = "What is written is safe; the same command goes on with the rest."


@exit_on_input_error
def main() -> None:
    config = parse(labelling.LabellingConfig, __doc__)
    with interruption.listening():
        try:
            summary = labelling.label_images(config)
        except BaseException as error:
            _leave_with(error)
    print(report(summary))
    if summary.ledger.failed_share > config.max_failed_share:
        print(
            f"error: {summary.ledger.failed_share:.1%} of the images failed, more than "
            f"max_failed_share={config.max_failed_share:.1%}; all rows are written",
            file=sys.stderr,
        )
        sys.exit(EXIT_TOO_MANY_FAILED)


def _leave_with(error: BaseException) -> NoReturn:
    """Say how to go on, and exit with the code of the error; others than ours go on their way."""
    signal = interruption.asked_by()
    if signal:
        _leave(f"stopped by {interruption.name_of(signal)}. {_GOES_ON}", 128 + signal)
    if isinstance(error, StalledError):
        _leave(f"error: {error}\n{_GOES_ON}", EXIT_STALLED)
    if isinstance(error, RunHeldError):
        _leave(f"error: {error}", EXIT_HELD)
    if isinstance(error, ClusterTooSmallError):
        _leave(f"error: {error}. {_GOES_ON}", EXIT_CLUSTER_TOO_SMALL)
    if isinstance(error, RunStoppedError):
        _leave(f"error: {error}. {_GOES_ON}", EXIT_STOPPED)
    raise error


def _leave(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr)
    cluster.leave(code)


def report(summary: "labelling.LabellingSummary") -> str:
    """The ledger of a finished run, for people."""
    record, ledger = summary.record, summary.ledger
    skipped = f" + skipped {ledger.skipped}" if ledger.skipped else ""
    lines = [
        f"run {record.run}: {record.status}",
        f"listed {ledger.listed} = labelled {ledger.labelled} + failed {ledger.failed}{skipped}"
        f" ({record.duplicates} duplicates dropped)",
        f"{ledger.detections} detections; {ledger.empty} images without objects",
    ]
    if record.left_out:
        counts = ", ".join(f"{count} {why}" for why, count in record.left_out.items())
        lines.append(f"not listed: {counts} (--all_files lists whatever has another suffix)")
    lines += [f"  failed, {kind}: {count}" for kind, count in ledger.failed_by_kind.items()]
    lines += [f"  skipped, labelled in {run}: {count}" for run, count in record.skipped_in.items()]
    if summary.labelled_now:
        lines.append(f"{record.images_per_second:.1f} images/s, start-up of the detectors included")
    else:
        lines.append("nothing left to do")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
