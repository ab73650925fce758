from datetime import UTC, datetime

from pipelines.submission.names import base_name, is_attempt, next_name


def _label(*flags: str) -> str:
    return base_name(["label", "--source", "s3://b/photos/", *flags])


def test_a_submission_is_called_after_its_run_and_the_table_that_has_it() -> None:
    night = _label("--table", "s3://b/t", "--run", "night 1")
    assert night.startswith("label-night_1-")
    assert _label("--run=night 1", "--table=s3://b/t", "--incremental") == night
    assert _label("--table", "s3://b/other", "--run", "night 1") != night


def test_without_a_run_the_day_and_all_flags_make_the_name() -> None:
    today = datetime.now(UTC).date().isoformat()
    assert _label("--table=t").startswith(f"label-{today}-")
    assert _label("--table=t", "--incremental") != _label("--table=t")
    assert base_name(["train", "--output=s3://b/runs/mine/"]).startswith("train-mine-")


def test_attempts_are_counted() -> None:
    assert next_name("label-n-1a", []) == "label-n-1a"
    assert next_name("label-n-1a", ["label-n-1a", "label-n-1a-2"]) == "label-n-1a-3"
    assert is_attempt("label-n-1a-2", "label-n-1a")
    assert not is_attempt("label-n-1a-b", "label-n-1a")
