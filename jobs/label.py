r"""Label every image of an archive and write what was seen as Parquet tables.

python -m jobs.label --source s3://bucket/photos/ --table s3://bucket/labels \
    --checkpoint s3://bucket/weights/yolox_s.pth

The same command again goes on where a run was killed or stopped. Exit codes: 0 all rows are
written; 1 the run stopped before its end; 2 bad input, nothing was started; 3 all rows are written
and more than --max_failed_share of them failed; 4 nothing moved for --stall_timeout seconds; 5 the
run is being labelled by somebody else; 6 the cluster had fewer than --min_actors detectors for
--wait_timeout seconds; 130 and 143 stopped by Ctrl-C and SIGTERM.
"""

import json
import sys
from datetime import timedelta

from rich import box
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from jobs.cli import exit_on_input_error, parse
from jobs.leaving import told_with_a_code
from pipelines import cluster, labelling

EXIT_TOO_MANY_FAILED = 3


@exit_on_input_error
def main() -> None:
    config = parse(labelling.LabellingConfig, __doc__)
    with told_with_a_code():
        done = (labelling.try_out if config.dry_run else labelling.label_images)(config)
    if isinstance(done, labelling.Estimate):
        show_estimate(done)
    else:
        print(report(done))
        _refuse_too_many_failed(done.ledger.failed_share, config.max_failed_share)


def _refuse_too_many_failed(share: float, most: float) -> None:
    if share > most:
        print(
            f"error: {share:.1%} of the images failed, more than max_failed_share={most:.1%}; "
            "all rows are written",
            file=sys.stderr,
        )
        sys.exit(EXIT_TOO_MANY_FAILED)


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


def show_estimate(estimate: "labelling.Estimate") -> None:
    """As a table for people on stderr, and as JSON on stdout."""
    failed = ", ".join(f"{share:.1%} {kind}" for kind, share in estimate.share_failed.items())
    rows = [
        ("images to label", f"{estimate.images:,} of {decimal(estimate.size_bytes)}"),
        ("labelled before", f"{estimate.skipped:,}"),
        ("not listed", f"{sum(estimate.left_out.values()):,}"),
        (f"failed, of {estimate.sampled} that were tried", failed or "none"),
        ("boxes", f"{estimate.detections:,}"),
        ("tables", decimal(estimate.table_bytes)),
        ("requests", ", ".join(f"{n:,} {kind}" for kind, n in estimate.requests.items())),
        ("start-up", f"{estimate.start_up_seconds:.0f} s"),
        ("images/s after it", f"{estimate.images_per_second:,.1f}"),
    ]
    for each in estimate.durations:
        duration = timedelta(seconds=round(each.seconds))
        rows.append((f"with {each.num_actors} actors", f"{duration}, {each.gpu_hours:.2f} GPU h"))
    shown = Table("what the run would take", "", box=box.SIMPLE_HEAD)
    for row in rows:
        shown.add_row(*row)
    Console(stderr=True).print(shown)
    print(json.dumps(estimate.to_json()))


if __name__ == "__main__":
    main()
    cluster.leave_local()
