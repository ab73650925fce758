import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.datasets.preparation import PrepareConfig, prepare
from pipelines.errors import InputError
from pipelines.storage import Folder
from tests.conftest import LabelledRun

BOX = {"class_name": "bird", "x1": 5.0, "y1": 6.0, "x2": 70.0, "y2": 80.0, "source": "person"}


def _photo(number: int, decision: str, *boxes: dict[str, Any], **others: Any) -> dict[str, Any]:
    named = {"image_uri": f"s3://photos/{number:05d}.jpg", "etag": f"e{number}", "run": "night"}
    return {**named, "decision": decision, "boxes": list(boxes), **others}


@pytest.fixture
def prepared(
    labelled_run: Callable[..., LabelledRun], tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    """The rows of a training table of a run of five photos, the last of which failed, by URI."""
    labelled_run("night", num_images=5).write(Folder(str(tmp_path / "table")))

    def prepared(
        *photos: dict[str, Any], only_reviewed: bool = False, **others: Any
    ) -> dict[str, Any]:
        content = {"format": "yolox-ray corrections", "version": 1, "photos": list(photos)}
        (tmp_path / "corrections.json").write_text(json.dumps(content | others))
        config = PrepareConfig(
            source=str(tmp_path / "table"),
            output=str(tmp_path / "train.parquet"),
            corrections=str(tmp_path / "corrections.json"),
            only_reviewed=only_reviewed,
        )
        rows = prepare(config).table.to_pylist()
        return {row["image_uri"].rpartition("/")[2]: row for row in rows}

    return prepared


def test_what_people_said_wins_over_what_the_model_said(prepared) -> None:
    model = prepared()
    rows = prepared(_photo(0, "corrected", BOX), _photo(1, "rejected"), _photo(3, "accepted"))
    assert (rows["00000.jpg"]["boxes"], rows["00000.jpg"]["class_ids"]) == ([[5, 6, 70, 80]], [2])
    assert "00001.jpg" not in rows
    assert rows["00002.jpg"] == model["00002.jpg"]
    assert [rows[f"0000{n}.jpg"]["sources"] for n in (0, 2, 3)] == [["person"], ["model"], []]
    assert rows["00003.jpg"]["boxes"] == []


@pytest.mark.parametrize(
    ("photo", "complaint"),
    [
        (_photo(0, "accepted", run="day"), "00000.jpg .it is about run 'day'"),
        (_photo(0, "accepted", etag="other"), "00000.jpg .the photo has changed since the review"),
        (_photo(9, "accepted"), "00009.jpg .the run has no such photo"),
        (_photo(0, "corrected", BOX | {"class_name": "fox"}), "the run has no class 'fox'"),
        (
            _photo(4, "accepted"),
            "00004.jpg .the run failed on it, corrupt: it can be rejected",
        ),
        (_photo(0, "perhaps"), "00000.jpg .decision 'perhaps' is none of accepted"),
        (_photo(2, "accepted"), "00002.jpg .it stands there twice"),
        (_photo(0, "corrected", BOX | {"x1": "left"}), "00000.jpg .could not convert"),
        (_photo(0, "corrected", BOX | {"source": "cat"}), "source 'cat' of a box is none of model"),
        (_photo(0, "corrected", {"source": "model"}), "00000.jpg .it has no 'x1'"),
        ({"image_uri": "a"}, "a .it has no 'decision'"),
        ("b", r"photos\[1\] "),
    ],
)
def test_corrections_that_do_not_fit_are_named_and_none_is_used(
    prepared, tmp_path, photo, complaint
) -> None:
    with pytest.raises(InputError, match=f"and none of it is used: .*{complaint}"):
        prepared(_photo(2, "rejected"), photo)
    assert not (tmp_path / "train.parquet").exists()


def test_each_photo_that_does_not_fit_is_named(prepared) -> None:
    wrong = _photo(0, "accepted", run="day"), _photo(9, "accepted"), _photo(1, "accepted", etag="")
    with pytest.raises(InputError, match=r"00000.jpg .*; .*00009.jpg .*; .*00001.jpg "):
        prepared(*wrong)


def test_a_photo_that_the_run_failed_on_can_be_rejected(prepared) -> None:
    assert prepared(_photo(4, "rejected")) == prepared()


def test_photos_that_nobody_looked_at_are_left_out_on_request(prepared) -> None:
    photos = _photo(0, "corrected", BOX), _photo(1, "rejected"), _photo(3, "accepted")
    assert list(prepared(*photos, only_reviewed=True)) == ["00000.jpg", "00003.jpg"]


def test_only_reviewed_without_corrections_is_refused() -> None:
    with pytest.raises(ValueError, match="--only_reviewed goes with --corrections"):
        PrepareConfig(source="labels", output="train.parquet", only_reviewed=True)


def test_a_box_that_a_person_let_stand_is_accepted(prepared) -> None:
    rows = prepared(_photo(0, "corrected", BOX, BOX | {"source": "model", "x1": 7.0}))
    assert rows["00000.jpg"]["sources"] == ["person", "accepted"]


@pytest.mark.parametrize(
    ("others", "complaint"),
    [
        ({"version": 2}, "is of version 2, and this reads 1"),
        ({"format": "x"}, "was not saved by"),
        ({"photos": None}, "has no list of photos"),
    ],
)
def test_another_file_or_version_is_refused(prepared, others, complaint) -> None:
    with pytest.raises(InputError, match=complaint):
        prepared(**others)
