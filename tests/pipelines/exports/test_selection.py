"""Which rows are exported: a run, or what a query names."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import InputError
from pipelines.exports import ExportConfig, export_table
from pipelines.storage.folder import Folder
from tests.pipelines.exports.conftest import read_json

BIRDS = "(FROM latest_detections WHERE class_name = 'bird')"


@pytest.fixture
def table(tmp_path: Path, labelled_run: Any) -> Folder:
    """Images 0 to 9 as of the first night; 10 to 14 are new in the second, which skipped those."""
    table = Folder(str(tmp_path / "labels"))
    labelled_run("first", "2026-11-20", num_images=10).write(table)
    labelled_run("second", "2026-11-21", num_images=15, skipped=10, skipped_in="first").write(table)
    return table


def exported(table: Folder, **more: Any) -> dict[str, list[tuple[str, float]]]:
    """Class and score of the boxes, by the name of the image; failed images are None."""
    output = Path(table.uri).with_name("out")
    export_table(ExportConfig(table=table.uri, format="megadetector", output=str(output), **more))
    results = read_json(output / "megadetector.json")
    names = results["detection_categories"]
    return {
        image["file"].removesuffix(".jpg").lstrip("0") or "0": image["detections"]
        and [(names[box["category"]], round(box["conf"], 2)) for box in image["detections"]]
        for image in results["images"]
    }


def test_the_newest_complete_run_is_exported_unless_another_one_is_named(table: Folder) -> None:
    newest = exported(table)
    assert list(newest) == ["10", "11", "12", "13", "14"]
    assert newest["13"] == []  # without boxes
    assert newest["14"] is None  # failed


def test_a_named_run_is_exported(table: Folder) -> None:
    assert len(exported(table, run="first")) == 10


def test_boxes_below_the_score_are_left_out_and_their_image_is_without_boxes(
    table: Folder,
) -> None:
    everything = exported(table, run="first", min_score=0.85)
    assert everything["1"] == [("dog", 0.89)]  # its other box has 0.44
    assert everything["6"] == []  # its one box has 0.84


def test_a_score_is_not_below_itself(table: Folder) -> None:
    assert exported(table, run="first", min_score=0.89)["1"] == [("dog", 0.89)]


def test_a_query_names_images_with_all_their_boxes(table: Folder) -> None:
    sql = "SELECT image_uri, run FROM latest_detections WHERE class_name = 'bird' AND score > 0.8"
    assert exported(table, sql=sql) == {
        "2": [("bird", 0.88), ("cat", 0.43), ("dog", 0.28)],
        "5": [("bird", 0.85), ("cat", 0.4), ("dog", 0.25)],
        "11": [("bird", 0.86), ("cat", 0.41), ("dog", 0.26)],
    }


def test_a_query_with_a_detection_index_names_boxes(table: Folder) -> None:
    sql = "SELECT * FROM latest_detections WHERE class_name = 'bird' AND score > 0.8"
    assert exported(table, sql=sql) == {
        "2": [("bird", 0.88)],
        "5": [("bird", 0.85)],
        "11": [("bird", 0.86)],
    }


def test_an_image_that_a_query_names_without_a_box_is_there_without_boxes(table: Folder) -> None:
    sql = f"""
        SELECT l.image_uri, l.run, d.detection_index
        FROM latest l LEFT JOIN {BIRDS} d USING (image_uri, run)
    """
    found = exported(table, sql=sql)
    assert len(found) == 15
    assert found["2"] == [("bird", 0.88)]
    assert found["0"] == []  # a cat
    assert found["4"] is None


@pytest.mark.parametrize("sql", ["FROM latest;", "SELECT * FROM latest -- all of it"])
def test_the_whole_archive_is_the_view_latest(table: Folder, sql: str) -> None:
    assert len(exported(table, sql=sql)) == 15


def test_a_query_beside_a_run_sees_that_run_only(table: Folder) -> None:
    sql = "SELECT image_uri, run FROM images"
    assert len(exported(table, sql=sql, run="second")) == 5


def test_classes_are_numbered_alike_whatever_is_left_out(table: Folder) -> None:
    sql = "SELECT * FROM latest_detections WHERE class_name = 'bird'"
    exported(table, sql=sql)
    results = read_json(Path(table.uri).with_name("out") / "megadetector.json")
    assert results["detection_categories"] == {"1": "cat", "2": "dog", "3": "bird"}


def test_an_image_that_a_query_names_twice_is_there_once(table: Folder) -> None:
    assert len(exported(table, sql="FROM latest UNION ALL FROM latest")) == 15


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT image_uri FROM latest", "have no column run, by which"),
        ("SELECT class_name FROM detections", "no column image_uri and no run"),
        ("SELECT * FROM read_csv('/etc/passwd')", "Permission"),
        ("SELECT * FROM '/etc/passwd'", "Permission|Catalog"),
        ("COPY images TO '/tmp/copy.csv'", "syntax error"),
        ("SELECT image_uri, run FROM images); DROP TABLE images; --", "Catalog Error"),
        ("SELECT image_uri, run, colour FROM images", 'column "colour" not found'),
        (";", "syntax error"),
    ],
)
def test_a_query_goes_through_the_sandbox_and_is_refused_in_one_sentence(
    table: Folder, sql: str, said: str
) -> None:
    with pytest.raises(InputError, match=said) as caught:
        exported(table, sql=sql)
    assert "\n" not in str(caught.value)
    assert not Path(table.uri).with_name("out").exists()


def test_an_image_in_two_runs_is_named_and_refused(table: Folder, labelled_run: Any) -> None:
    labelled_run("third", "2026-11-22", num_images=1).write(table)
    with pytest.raises(InputError, match=r"00000\.jpg in run 'first' and in run 'third'"):
        exported(table, sql="SELECT image_uri, run FROM images")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"run": "lost"}, "has no run 'lost'"),
        ({"table": "/nowhere"}, "/nowhere is not a table"),
        ({"sql": "FROM latest", "run": "lost"}, "has no run 'lost'"),
    ],
)
def test_an_unknown_run_or_table_is_refused_and_nothing_is_written(
    table: Folder, tmp_path: Path, flags: dict[str, str], said: str
) -> None:
    output = tmp_path / "out"
    given = {"table": table.uri, "format": "coco", "output": str(output), **flags}
    with pytest.raises(InputError, match=said):
        export_table(ExportConfig(**given))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels"]


def test_a_table_whose_files_are_broken_is_refused(table: Folder, tmp_path: Path) -> None:
    table.write("images/date=2026-11-21/run=second/part-00000000.parquet", b"no Parquet")
    with pytest.raises(InputError, match="cannot be read"):
        exported(table)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [{"min_score": 1.5}, {"memory_mb": 16}])
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ExportConfig(table="labels", format="coco", output="out", **wrong)
