import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.datasets.checks import checked_table
from pipelines.datasets.formats.detections import read_detections
from pipelines.errors import InputError
from pipelines.evaluation.coco import evaluate
from pipelines.storage.folder import Folder
from pipelines.tables.query import open_run
from pipelines.tables.schema import DETECTIONS, IMAGES


def write_run(table: Folder, run: str, *found: tuple[str, int, str, float]) -> None:
    """Two labelled images and a failed one, with (image, class_id, class_name, score) on them."""
    image: dict[str, Any] = {"num_detections": 0, "labelled_at": 0, "width": 100, "height": 80}
    images = [
        image | {"image_uri": f"s3://photos/{name}.jpg", "status": status, "etag": f"tag-{name}"}
        for name, status in (("a", "labelled"), ("b", "labelled"), ("bad", "failed"))
    ]
    detections = [
        {
            **{"image_uri": f"s3://photos/{name}.jpg", "detection_index": index},
            **{"class_id": class_id, "class_name": class_name, "score": score},
            **{"x1": 10, "y1": 20, "x2": 30 + index, "y2": 40},
            **{"image_width": 100, "image_height": 80},
        }
        for index, (name, class_id, class_name, score) in enumerate(found)
    ]
    part = f"date=2026-11-21/run={run}/part-0.parquet"
    table.write_table(f"detections/{part}", pa.Table.from_pylist(detections, DETECTIONS))
    table.write_table(f"images/{part}", pa.Table.from_pylist(images, IMAGES))
    record = {"run": run, "date": "2026-11-21", "status": "complete"}
    table.write(f"runs/{run}.json", json.dumps(record).encode())


@pytest.fixture
def table(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


def test_a_photo_that_was_labelled_in_part_is_left_out_and_told_of(table: Folder) -> None:
    write_run(table, "night", ("a", 15, "cat", 0.9), ("b", 16, "dog", 0.9))
    part = "images/date=2026-11-21/run=night/part-0.parquet"
    images = pq.read_table(table.uri_of(part)).to_pylist()
    images[0]["decoded_share"] = 0.6
    table.write_table(part, pa.Table.from_pylist(images, IMAGES))
    found = read_detections(table.uri, "", min_score=0.5)
    assert [image.uri for image in found.images] == ["s3://photos/b.jpg"]
    assert found.notes == ["1 photos left out that were cut short"]


def test_detections_of_enough_score_become_boxes_of_their_labelled_images(table: Folder) -> None:
    write_run(table, "night", ("a", 15, "cat", 0.9), ("a", 15, "cat", 0.5), ("b", 16, "dog", 0.49))
    prepared, faults = checked_table(read_detections(table.uri, "", min_score=0.5))
    row = {"width": 100, "height": 80}
    assert prepared.to_pylist() == [
        row
        | {
            "image_uri": "s3://photos/a.jpg",
            "boxes": [[10, 20, 30, 40], [10, 20, 31, 40]],
            "class_ids": [0, 0],
            "is_crowd": [False, False],
            "areas": [400, 420],
            "etag": "tag-a",
            "sources": ["model", "model"],
        },
        row
        | {"image_uri": "s3://photos/b.jpg", "boxes": [], "class_ids": []}
        | {"is_crowd": [], "areas": [], "etag": "tag-b", "sources": []},
    ]
    assert faults == []


def test_the_classes_are_those_of_all_detections_whatever_score_is_asked_for(
    table: Folder,
) -> None:
    write_run(table, "night", ("b", 16, "dog", 0.1), ("a", 7, "cat", 0.9))
    for min_score in (0.0, 0.5, 1.0):
        assert read_detections(table.uri, "", min_score).class_names == ["cat", "dog"]


def test_one_run_is_read_the_newest_or_the_one_that_is_named(table: Folder) -> None:
    write_run(table, "a-first", ("a", 0, "cat", 0.9))
    write_run(table, "b-second", ("a", 0, "dog", 0.9))
    assert read_detections(table.uri, "", 0.5).class_names == ["dog"]
    assert read_detections(table.uri, "a-first", 0.5).class_names == ["cat"]
    with pytest.raises(InputError, match="no run 'lost'"):
        read_detections(table.uri, "lost", 0.5)


def test_a_run_measured_against_the_table_of_its_own_detections_is_perfect(table: Folder) -> None:
    write_run(table, "night", ("a", 15, "cat", 0.9), ("b", 15, "cat", 0.8), ("b", 7, "dog", 0.7))
    truth, _ = checked_table(read_detections(table.uri, "", min_score=0.5))
    detections = open_run(table.uri).detections.to_table()
    assert evaluate(detections, truth).ap == pytest.approx(1)
