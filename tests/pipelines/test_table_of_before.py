"""A table that the version of 2026-11-27 wrote, before the rooms: it is gone on with as if today's.

It has a finished run, and one that was stopped after two of its nine parts.
"""

import shutil
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from pipelines.comparison import ComparisonConfig, compare
from pipelines.datasets import PrepareConfig, prepare, read_training_table
from pipelines.evaluation import evaluate
from pipelines.exports import ExportConfig, export_table
from pipelines.labelling import LabellingConfig, LabellingSummary, label_images
from pipelines.tables import (
    AuditConfig,
    CompactionConfig,
    audit_table,
    compact_table,
    ddl,
    list_runs,
    open_run,
    open_table,
    run_query,
)
from tests.conftest import ROOT, Bucket

BEFORE = ROOT / "tests/golden/table_of_2026_11_27"
STOPPED = "2026-11-27-8a9b6328"
SOURCE = "s3://photos-of-before/2026/"


@pytest.fixture
def table(tmp_path: Path) -> str:
    return str(shutil.copytree(BEFORE / "table", tmp_path / "table"))


@pytest.fixture(scope="module")
def source(s3_endpoint: str, s3_server: str) -> str:
    """The archive that the table is of, where its manifest says that it lies."""
    bucket = Bucket("photos-of-before", s3_server)
    for photo in (BEFORE / "photos").iterdir():
        bucket.put(f"2026/{photo.name}", photo.read_bytes())
    return SOURCE


def _label(table: str, source: str, **changes: object) -> LabellingSummary:
    checkpoint = str(ROOT / "assets/shapes/shapes_nano.pth")
    given = {"table": table, "source": source, "checkpoint": checkpoint, "images_per_part": 2}
    return label_images(LabellingConfig(**given | changes))


def _broken(table: str) -> list[str]:
    audits = audit_table(AuditConfig(table=table))
    return [f"{audit.run}: {broken}" for audit in audits for broken in audit.broken]


def _boxes(table: str, run: str) -> pa.Table:
    sql = "SELECT * EXCLUDE (date, run) FROM detections ORDER BY image_uri, detection_index"
    return run_query(open_run(table, run), sql)


def test_it_is_listed_queried_and_checked(table: str) -> None:
    listed = {row["run"]: row["state"] for row in list_runs(table).to_pylist()}
    assert listed == {"finished": "complete", STOPPED: "stopped"}
    counts = "SELECT count(*) AS images, sum(num_detections)::INT AS boxes FROM images"
    [row] = run_query(open_table(table), counts).to_pylist()
    assert row == {"images": 17, "boxes": 126}
    assert _broken(table) == []


def test_the_stopped_run_is_found_by_its_settings_and_does_the_rest(
    table: str, source: str, local_ray: None
) -> None:
    summary = _label(table, source)
    assert summary.record.run == STOPPED
    assert summary.record.settings.detector == "yolox"
    assert (summary.ledger.listed, summary.labelled_now) == (17, 13)
    assert _broken(table) == []
    mine, before = _boxes(table, STOPPED), _boxes(table, "finished")
    keys = ["image_uri", "detection_index", "class_name"]
    assert mine.select(keys).equals(before.select(keys))
    for name in ("score", "x1", "y1", "x2", "y2"):  # processors differ in the last digits
        np.testing.assert_allclose(mine[name], before[name], atol=0.01)


def test_parts_of_before_and_of_today_make_one_table(
    table: str, source: str, local_ray: None
) -> None:
    """Only today's images have a column `decoded_share`."""
    _label(table, source)
    with duckdb.connect() as connection:
        connection.execute(ddl(table, "duckdb"))
        counts = "SELECT run, count(*), count(decoded_share) FROM images GROUP BY run ORDER BY run"
        whole = [(STOPPED, 17, 0), ("finished", 17, 0)]
        assert connection.sql(counts).fetchall() == whole
        list(compact_table(CompactionConfig(table=table, grace_seconds=0)))
        assert connection.sql(counts).fetchall() == whole
    assert _broken(table) == []
    config = ComparisonConfig(table=table, before="finished", after=STOPPED)
    with compare(config) as comparison:
        counts = comparison.counts()
    assert (counts.photos, counts.changed, counts.matched) == (16, 0, 126)


def test_it_is_exported_and_evaluated(table: str, tmp_path: Path) -> None:
    config = ExportConfig(table=table, format="csv", output=str(tmp_path / "csv"), run="finished")
    assert export_table(config).counts.boxes == 126
    output = str(tmp_path / "truth.parquet")
    prepare(PrepareConfig(source=table, run="finished", min_score=0, output=output))
    truth, _ = read_training_table(output)
    assert evaluate(_boxes(table, "finished"), truth).ap == 1  # by its own boxes


def test_its_rows_count_as_labelled_alike(table: str, source: str, local_ray: None) -> None:
    summary = _label(table, source, incremental=True)
    assert summary.record.skipped_in == {"finished": 16}
    assert summary.ledger.failed_by_kind == {"not_an_image": 1}


def test_its_finished_run_is_compacted_to_the_same_rows(table: str) -> None:
    before = _boxes(table, "finished")
    [compaction] = compact_table(CompactionConfig(table=table, grace_seconds=0))
    assert (compaction.files_before, compaction.files_after) == (18, 2)
    assert _boxes(table, "finished").equals(before)
    assert _broken(table) == []
