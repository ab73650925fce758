r"""Label every image of an archive and write what was seen as Parquet tables.

python -m jobs.label --source s3://bucket/photos/ --table s3://bucket/labels \
    --checkpoint s3://bucket/weights/yolox_s.pth

The same command again goes on where a killed one stopped. Exit codes: 0 all rows are written; 2 bad
input, nothing was started; 3 all rows are written and more than --max_failed_share of them failed.
"""

import sys

from jobs.cli import exit_on_input_error, parse
from pipelines.labelling import LabellingConfig, LabellingSummary, label_images

EXIT_TOO_MANY_FAILED = 3


@exit_on_input_error
def main() -> None:
    config = parse(LabellingConfig, __doc__)
    summary = label_images(config)
    print(report(summary))
    if summary.ledger.failed_share > config.max_failed_share:
        print(
            f"error: {summary.ledger.failed_share:.1%} of the images failed, more than "
            f"max_failed_share={config.max_failed_share:.1%}; all rows are written",
            file=sys.stderr,
        )
        sys.exit(EXIT_TOO_MANY_FAILED)


def report(summary: LabellingSummary) -> str:
    """The ledger of a finished run, for people."""
    record, ledger = summary.record, summary.ledger
    lines = [
        f"run {record.run}: {record.status}",
        f"listed {ledger.listed} = labelled {ledger.labelled} + failed {ledger.failed}"
        f" ({record.duplicates} duplicates dropped)",
        f"{ledger.detections} detections; {ledger.empty} images without objects",
    ]
    lines += [f"  failed, {kind}: {count}" for kind, count in ledger.failed_by_kind.items()]
    if summary.labelled_now:
        lines.append(f"{record.images_per_second:.1f} images/s, start-up of the detectors included")
    else:
        lines.append("nothing left to do")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
