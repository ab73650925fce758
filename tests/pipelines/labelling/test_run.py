from pathlib import Path

import cv2
import numpy as np
import pytest

from pipelines.datasets import read_coco
from pipelines.errors import InputError
from pipelines.evaluation.coco import evaluate
from pipelines.labelling.config import LabellingConfig
from pipelines.labelling.run import LabellingSummary, label_images
from pipelines.tables import runs
from pipelines.tables.ledger import Ledger
from pipelines.tables.query import open_table, run_query

pytestmark = pytest.mark.ray


@pytest.fixture
def checkpoint(tmp_path: Path, tiny_checkpoint: bytes) -> str:
    path = tmp_path / "tiny.pth"
    path.write_bytes(tiny_checkpoint)
    return str(path)


def _photos(folder: Path, count: int) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = rng.integers(0, 256, (40, 60, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number:04d}.jpg"), pixels)
    return folder


def _rows(table: str, view: str) -> list[dict]:
    """Every row and column of a view but the times, in a defined order."""
    columns = "* EXCLUDE (labelled_at)" if view == "images" else "*"
    order = "image_uri" if view == "images" else "image_uri, detection_index"
    sql = f"SELECT {columns} FROM {view} ORDER BY {order}"
    return run_query(open_table(table, all_runs=True), sql).to_pylist()


def test_every_odd_file_gives_the_row_it_must_and_costs_no_neighbour(
    bucket, odd_archive, checkpoint, local_ray
) -> None:
    for key, file in odd_archive.items():
        bucket.put(f"archive/{key}", file.body)
    table = f"s3://{bucket.name}/table"
    config = LabellingConfig(
        source=f"s3://{bucket.name}/archive/",
        table=table,
        checkpoint=checkpoint,
        score_threshold=0.00005,
        batch_size=3,
        images_per_part=5,
    )
    ledger = label_images(config).ledger
    images = _rows(table, "images")

    prefix = f"s3://{bucket.name}/archive/"
    got = {
        row["image_uri"].removeprefix(prefix): row["error_kind"] or (row["width"], row["height"])
        for row in images
    }
    assert got == {key: file.error_kind or file.size for key, file in odd_archive.items()}
    assert len(images) == len(odd_archive) == ledger.listed
    assert ledger.failed == sum(file.error_kind is not None for file in odd_archive.values())

    boxes = _rows(table, "detections")
    assert len(boxes) == ledger.detections == sum(row["num_detections"] for row in images) > 0
    assert all(0 <= box["x1"] < box["x2"] <= box["image_width"] for box in boxes)
    assert all(0 <= box["y1"] < box["y2"] <= box["image_height"] for box in boxes)


def test_photos_that_were_cut_short_fail_and_can_be_labelled_as_far_as_they_go(
    tmp_path, shared, checkpoint, local_ray
) -> None:
    cases, table = shared / "cases/images", str(tmp_path / "table")
    given = {"table": table, "checkpoint": checkpoint, "score_threshold": 0.00005}
    first = label_images(LabellingConfig(source=str(cases), run="first", **given))
    assert (first.ledger.labelled, first.ledger.failed_by_kind) == (3, {"truncated": 1})
    assert [row["decoded_share"] for row in _rows(table, "images")] == [None] * 4

    again = {"retry_failed": "first", "retry_kinds": ("truncated",), "truncated": "label"}
    second = label_images(LabellingConfig(run="second", **again, **given))
    assert (second.ledger.listed, second.ledger.labelled) == (1, 1)
    [row] = [row for row in _rows(table, "images") if row["run"] == "second"]
    assert (row["width"], row["height"]) == (320, 240)
    assert row["decoded_share"] == pytest.approx(143 / 240)
    boxes = [box for box in _rows(table, "detections") if box["run"] == "second"]
    assert len(boxes) > 0
    assert max(box["y2"] for box in boxes) <= 143


def test_a_source_whose_only_image_is_bad_is_a_complete_run(
    tmp_path, checkpoint, local_ray
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(b"<html>")
    table = str(tmp_path / "table")
    config = LabellingConfig(source=str(tmp_path / "photos"), table=table, checkpoint=checkpoint)
    summary = label_images(config)
    assert summary.ledger.failed_by_kind == {"not_an_image": 1}
    assert summary.record.status == runs.COMPLETE
    assert _rows(table, "detections") == []


def test_the_official_nano_weights_reach_their_ap_through_the_tables(
    tmp_path, shared, local_ray
) -> None:
    photos = shared / "data/coco_val79/images"
    table = str(tmp_path / "table")
    config = LabellingConfig(
        source=str(photos), table=table, checkpoint=str(shared / "weights/yolox_nano_coco.pth")
    )
    ledger = label_images(config).ledger
    assert ledger.detections == 4760
    truth = read_coco(str(shared / "data/coco_val79/instances.json"), str(photos))
    detections = open_table(table).detections.to_table()
    assert evaluate(detections, truth).ap == pytest.approx(0.3116, abs=0.001)


def _night(tmp_path: Path, **changes: object) -> LabellingSummary:
    """A run of the stand-in over tmp_path/photos, whose files need not be images."""
    (tmp_path / "weights.bin").write_bytes(b"the stand-in's")
    given = {
        "table": str(tmp_path / "table"),
        "checkpoint": str(tmp_path / "weights.bin"),
        "source": str(tmp_path / "photos"),
        "detector": "tests.stand_in:StandIn",
    }
    return label_images(LabellingConfig(**given | changes))


def test_an_incremental_run_labels_what_is_new_or_changed_and_latest_shows_all(
    tmp_path, local_ray
) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("old", "changed"):
        (tmp_path / f"photos/{name}.jpg").write_bytes(b"image")
    first = _night(tmp_path, run="first")
    assert (first.ledger.listed, first.ledger.skipped) == (2, 0)

    (tmp_path / "photos/changed.jpg").write_bytes(b"another image")
    (tmp_path / "photos/new.jpg").write_bytes(b"image")
    second = _night(tmp_path, run="second", incremental=True)
    assert second.ledger == Ledger(3, 2, 0, {}, second.ledger.detections, skipped=1)
    assert second.record.skipped_in == {"first": 1}
    assert _night(tmp_path, run="third", incremental=True).record.skipped_in == {
        "first": 1,
        "second": 2,
    }
    other_settings = _night(tmp_path, run="other", incremental=True, nms_threshold=0.5)
    assert other_settings.ledger.skipped == 0

    views = open_table(str(tmp_path / "table"))
    latest = run_query(views, "SELECT parse_filename(image_uri) AS f, run FROM latest ORDER BY f")
    assert latest["run"].to_pylist() == ["other"] * 3


def test_the_failed_images_of_a_run_are_tried_again_by_kind(tmp_path, local_ray) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("fine", "NAN", "CRASH"):
        (tmp_path / f"photos/{name}.jpg").write_bytes(name.encode())
    assert _night(tmp_path, run="first").ledger.failed_by_kind == {"crashed": 1, "not_finite": 1}
    for name in ("NAN", "CRASH"):
        (tmp_path / f"photos/{name}.jpg").write_bytes(b"image")  # as it should have been

    again = {"source": "", "retry_failed": "first"}
    one = _night(tmp_path, run="second", **again, retry_kinds=("crashed",))
    assert (one.ledger.listed, one.ledger.labelled) == (1, 1)
    both = _night(tmp_path, run="third", **again)
    assert (both.ledger.listed, both.ledger.labelled) == (2, 2)
    assert all(row["etag"] for row in _rows(str(tmp_path / "table"), "images"))
    with pytest.raises(InputError, match="no image has failed as denied: nothing to label"):
        _night(tmp_path, run="fourth", **again, retry_kinds=("denied",))
    with pytest.raises(InputError, match="has no run 'fourth'"):
        _night(tmp_path, source="", retry_failed="fourth")


def _config(tmp_path: Path, weights: str, **changes: object) -> LabellingConfig:
    given = {"source": tmp_path / "photos", "table": tmp_path / "table", "checkpoint": weights}
    return LabellingConfig(**({name: str(value) for name, value in given.items()} | changes))


def test_what_cannot_be_labelled_is_refused_before_ray_starts(
    tmp_path, checkpoint, bucket, monkeypatch
) -> None:
    monkeypatch.setattr("pipelines.cluster.connect", lambda: pytest.fail("Ray was started"))
    (tmp_path / "empty").mkdir()
    _photos(tmp_path / "photos", 1)
    complaints: dict[str, dict[str, object]] = {
        "holds no files": {"source": str(tmp_path / "empty")},
        "cannot be listed": {"source": "s3://no-such-bucket-here/x"},
        r"absent\.pth cannot be read": {"checkpoint": str(tmp_path / "absent.pth")},
        "not a torch file": {"checkpoint": str(tmp_path / "photos/0000.jpg")},
        "table='s3://no-such-bucket-here/t' cannot be used": {
            "table": "s3://no-such-bucket-here/t"
        },
        "lies inside source": {"table": str(tmp_path / "photos/table")},
        "letters, digits": {"run": "../x"},
    }
    for complaint, changes in complaints.items():
        with pytest.raises(InputError, match=complaint):
            label_images(_config(tmp_path, checkpoint, **changes))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"score_threshold": 1.5}, "score_threshold=1.5: must lie between 0 and 1"),
        ({"batch_size": 0}, "batch_size=0: must be at least 1"),
        ({"num_actors": 0}, "num_actors=0: must be at least 1"),
        ({"date": "21.11.2026"}, "must be YYYY-MM-DD"),
        ({"input_size": 100}, r"input size \(100, 100\): .* positive multiples of 32"),
    ],
)
def test_a_wrong_setting_is_refused_with_the_rule(changes: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        LabellingConfig(source="s", table="t", checkpoint="c", **changes)
