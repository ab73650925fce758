r"""Compare what two runs found on the same photos: new and lost boxes, and how scores moved.

yolox-ray diff --table s3://bucket/labels --before 2026-11-20-0a1b2c3d --after 2026-11-21-4e5f6a7b
yolox-ray diff --table labels --before night --after night --after_table relabelled \
    --min_score 0.5 --fail_if "lost > 5%"

Looked at are the photos that both runs labelled. By falling score a box of the second run takes,
of the first one's boxes of its class that are not taken yet, the one that it overlaps most, if by
--iou or more. The two have matched; what is left is new, or lost. A photo has changed if it has a
new or a lost box.

--review writes a page of the photos that changed most, as yolox-ray review does: each with what was
lost, new and matched, to be corrected as photos of the second run.

--fail_if ends the job with exit code 3 if a condition holds: lost, new or changed, then > >= < or
<=, and a number or a share. Shares are, for lost, of the boxes before; for new, of those after; for
changed, of the photos that both runs labelled.

Exit code 0: compared; 2: something given cannot be used; 3: what --fail_if
names is so; 130 and 143: stopped by Ctrl-C and SIGTERM.
"""

import json
import sys
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from jobs.cli import exit_on_input_error, parse
from jobs.leaving import stopped_with_a_code
from jobs.printing import print_table
from pipelines import comparison, review

EXIT_CONDITION_HOLDS = 3


@dataclass(frozen=True, kw_only=True)
class DiffConfig(comparison.ComparisonConfig):
    """Which runs to compare, and how to show it."""

    json: bool = False
    """Print one JSON object instead of tables."""
    fail_if: str = ""
    """Such as 'lost > 5%'."""
    review: str = ""
    """A folder or s3:// prefix for a page of the photos that changed most and its pictures; it must
    not hold anything yet."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fail_if:
            comparison.parse_condition(self.fail_if)


@exit_on_input_error
def main() -> None:
    config = parse(DiffConfig, __doc__)
    condition = comparison.parse_condition(config.fail_if) if config.fail_if else None
    if config.review:
        review.empty_folder(config.review)
    with stopped_with_a_code():  # so that nothing stays in TMPDIR
        counts = _compare(config, condition)
    if condition and condition.holds(counts):
        sys.exit(EXIT_CONDITION_HOLDS)


def _compare(config: DiffConfig, condition: "comparison.Condition | None") -> "comparison.Counts":
    with comparison.compare(config) as compared:
        counts = compared.counts()
        written = _write_review(config, compared) if config.review and counts.changed else None
        if config.json:
            told = _as_json(config, compared, condition) | {"review": written and asdict(written)}
            print(json.dumps(told, ensure_ascii=False, indent=2))
        else:
            _print(config, compared, condition)
            _print_review(config, written)
        return counts


def _write_review(config: DiffConfig, compared: "comparison.Comparison") -> "review.WrittenReview":
    shown = review.ReviewConfig(
        table=config.after_table or config.table,
        output=config.review,
        run=config.after,
        threshold=config.min_score,
    )
    return review.write_review(shown, review.changed_photos(compared, shown.max_photos))


def _as_json(
    config: DiffConfig,
    compared: "comparison.Comparison",
    condition: "comparison.Condition | None",
) -> dict[str, Any]:
    counts, classes = compared.counts(), compared.classes()
    return {
        "config": {name: value for name, value in asdict(config).items() if name != "json"},
        "photos": {**compared.photos(), "changed": counts.changed},
        "boxes": {name: getattr(counts, name) for name in _BOXES},
        "classes": classes.to_pylist(),
        f"by_{config.by}": _with_text(compared.groups(), config.by),
        "most_changed": compared.most_changed().to_pylist(),
        "condition": condition
        and {
            "fail_if": config.fail_if,
            "value": condition.value(counts),
            "holds": condition.holds(counts),
        },
    }


def _with_text(groups: pa.Table, name: str) -> list[dict[str, Any]]:
    """Days as ISO 8601."""
    return [{**row, name: str(row[name])} for row in groups.to_pylist()]


_BOXES = ("before", "after", "matched", "new", "lost")
_DRIFTS = {
    "drift_5": "5 %",
    "drift_25": "25 %",
    "drift_50": "median",
    "drift_75": "75 %",
    "drift_95": "95 %",
}


def _print(
    config: DiffConfig,
    compared: "comparison.Comparison",
    condition: "comparison.Condition | None",
) -> None:
    counts, classes = compared.counts(), compared.classes()
    print(f"{counts.photos:,} photos labelled by both runs, {counts.changed:,} of them changed")
    print(", ".join(f"{getattr(counts, name):,} {name}" for name in _BOXES), "boxes")
    if left_out := _left_out(compared):
        print(f"not compared: {left_out}")
    print_table(classes.select(["class_name", *_BOXES]), "Boxes", max_rows=len(classes))
    drift = classes.select(["class_name", *_DRIFTS]).rename_columns(
        ["class_name", *_DRIFTS.values()]
    )
    print_table(drift, "Scores of matched boxes, after less before", max_rows=len(classes))
    groups = compared.groups()
    print_table(groups, f"By {config.by}")
    print_table(compared.most_changed(), "Photos that changed most")
    if condition:
        holds = "holds" if condition.holds(counts) else "does not hold"
        value, unit = condition.value(counts), " %" if condition.is_share else ""
        print(f"{config.fail_if} {holds}: it is {value:,.6g}{unit}")


def _print_review(config: DiffConfig, written: "review.WrittenReview | None") -> None:
    if written:
        print(f"{written.photos:,} of {written.drawn_from:,} photos that changed: {written.page}")
    elif config.review:
        print("no photo changed, so there is no page to write")


def _left_out(compared: "comparison.Comparison") -> str:
    told = {
        "failed_after": "failed only after",
        "failed_before": "failed only before",
        "failed_in_both": "failed in both",
        "only_before": "only the run before has",
        "only_after": "only the run after has",
    }
    photos = compared.photos()
    return ", ".join(
        f"{photos[name]:,} photos that {what}" for name, what in told.items() if photos[name]
    )


if __name__ == "__main__":
    main()
