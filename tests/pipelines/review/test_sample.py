from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.errors import InputError
from pipelines.review.config import ReviewConfig
from pipelines.review.folder import write_review
from pipelines.review.named import named_photos
from pipelines.review.sample import Sample, draw_sample
from pipelines.storage import Folder
from pipelines.tables import open_run
from tests.conftest import LabelledRun


@pytest.fixture
def table(labelled_run: Callable[..., LabelledRun], tmp_path: Path) -> str:
    """A run of 100 images: 60 with boxes, 20 without, 10 `corrupt` and 10 `gone`."""
    folder = Folder(str(tmp_path / "table"))
    labelled_run("night", num_images=100).write(folder)
    return folder.uri


def _draw(table: str, most: int, **others: object) -> Sample:
    return draw_sample(ReviewConfig(table=table, output="-", max_photos=most, **others))


def test_of_rare_kinds_as_many_are_drawn_as_of_common_ones(table: str) -> None:
    sample = _draw(table, 12)
    assert sample.num_images == 100
    kinds = Counter(
        image["error_kind"] or bool(sample.boxes.get(image["image_uri"])) for image in sample.images
    )
    assert kinds["corrupt"] == kinds["gone"]
    assert min(kinds.values()) >= 2


def test_all_are_drawn_where_there_are_no_more_and_each_with_its_boxes(table: str) -> None:
    sample = _draw(table, 500)
    assert len({image["image_uri"] for image in sample.images}) == 100
    assert sum(map(len, sample.boxes.values())) == 20 * (1 + 2 + 3)
    assert sample.class_names == ["cat", "dog", "bird"]
    for boxes in sample.boxes.values():
        scores = [box["score"] for box in boxes]
        assert scores == sorted(scores, reverse=True)


def test_a_seed_draws_the_same_sample_again_and_another_one_another(table: str) -> None:
    first, again, other = (_draw(table, 10, seed=seed).images for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_sql_names_the_photos(table: str) -> None:
    sample = _draw(table, 500, sql="FROM latest_detections WHERE class_name = 'dog';")
    assert all(
        "dog" in [box["class_name"] for box in sample.boxes[image["image_uri"]]]
        for image in sample.images
    )
    assert sample.num_images == len(sample.images) < 60


def test_named_photos_keep_their_order_and_unknown_ones_are_left_out(table: str) -> None:
    drawn = _draw(table, 10)
    uris = [image["image_uri"] for image in drawn.images]
    named = named_photos(open_run(table), ["s3://elsewhere/a.jpg", *reversed(uris)], "two")
    assert [image["image_uri"] for image in named.images] == uris[::-1]
    assert named.images[0] == drawn.images[-1]
    assert {uri: boxes for uri, boxes in named.boxes.items() if boxes} == drawn.boxes


@pytest.mark.parametrize(
    ("sql", "complaint"),
    [
        ("SELECT run FROM images", "one must be image_uri"),
        ("SELECT image_uri FROM nowhere", "nowhere"),
        ("SELECT image_uri FROM read_csv('/etc/passwd')", "disabled"),
        ("SELECT image_uri FROM images WHERE false", "no photo to look at"),
    ],
)
def test_sql_that_cannot_be_used_is_refused(table: str, sql: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        _draw(table, 5, sql=sql)


def test_a_folder_that_holds_something_is_left_as_it_is(table: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        write_review(ReviewConfig(table=table, output=str(tmp_path / "out")))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
