"""Two runs, compared box by box: as a plain loop does it, and as a person counts it."""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.comparison import (
    CHANGES,
    Comparison,
    ComparisonConfig,
    compare,
    matching,
)
from pipelines.errors import InputError
from pipelines.storage.folder import Folder

Row = dict[str, Any]
CORNERS = ("x1", "y1", "x2", "y2")
PHOTO = "s3://photos/00000.jpg"


@pytest.fixture
def table(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "labels"))


@pytest.fixture
def write(labelled_run: Callable[..., Any], table: Folder) -> Callable[..., Any]:
    """Writes a run over the same photos with these boxes."""

    def write_run(run: str, boxes: list[Row], num_images: int = 1, **changes: Any) -> Any:
        made = labelled_run(run, num_images=num_images, per_part=num_images)
        made.detections = {0: boxes}
        for row in made.images[0]:
            row |= {"status": "labelled", "error_kind": None, **changes}
        made.write(table)
        return made

    return write_run


def box(index: int, score: float, *corners: float, name: str = "cat", uri: str = PHOTO) -> Row:
    return {
        "image_uri": uri,
        "detection_index": index,
        "class_id": ["cat", "dog", "bird"].index(name),
        "class_name": name,
        "score": score,
        **dict(zip(CORNERS, corners, strict=True)),
        "image_width": 640,
        "image_height": 480,
    }


def config(table: Folder, **more: Any) -> ComparisonConfig:
    return ComparisonConfig(table=table.uri, before="before", after="after", **more)


def changes(compared: Comparison) -> list[Row]:
    return [row for batch in compared.changes() for row in batch.to_pylist()]


def told(table: Folder, **more: Any) -> Counter[tuple[str, int | None, int | None]]:
    """Each change with the indices of its boxes."""
    with compare(config(table, **more)) as compared:
        return Counter(
            (row["change"], row["before_index"], row["after_index"]) for row in changes(compared)
        )


def test_a_box_that_moved_a_little_has_matched_and_one_that_moved_far_is_lost_and_new(
    table: Folder, write: Callable[..., Any]
) -> None:
    write("before", [box(0, 0.9, 0, 0, 10, 10), box(1, 0.8, 100, 100, 110, 110)])
    # 80 px² of a union of 120; 20 px² of 180.
    write("after", [box(0, 0.7, 2, 0, 12, 10), box(1, 0.6, 108, 100, 118, 110)])
    with compare(config(table)) as compared:
        matched, lost, new = changes(compared)
    assert (matched["change"], matched["before_index"], matched["after_index"]) == ("matched", 0, 0)
    assert matched["iou"] == pytest.approx(80 / 120)
    assert (matched["before_score"], matched["after_score"]) == pytest.approx((0.9, 0.7))
    assert (lost["change"], lost["before_index"], lost["after_index"]) == ("lost", 1, None)
    assert [lost[f"before_{corner}"] for corner in CORNERS] == [100, 100, 110, 110]
    assert (new["change"], new["before_index"], new["after_index"]) == ("new", None, 1)
    assert [new[f"after_{corner}"] for corner in CORNERS] == [108, 100, 118, 110]
    assert new["before_x1"] is None


def test_another_class_is_another_box(table: Folder, write: Callable[..., Any]) -> None:
    write("before", [box(0, 0.9, 0, 0, 10, 10, name="cat")])
    write("after", [box(0, 0.9, 0, 0, 10, 10, name="dog")])
    assert told(table) == {("lost", 0, None): 1, ("new", None, 0): 1}


def test_of_two_boxes_that_want_the_same_one_the_higher_score_has_it(
    table: Folder, write: Callable[..., Any]
) -> None:
    write("before", [box(0, 0.9, 0, 0, 10, 10)])
    # The second one overlaps more, and comes too late.
    write("after", [box(0, 0.8, 2, 0, 12, 10), box(1, 0.7, 0, 0, 10, 10)])
    assert told(table) == {("matched", 0, 0): 1, ("new", None, 1): 1}


def test_a_box_takes_the_one_that_it_overlaps_most_and_the_next_one_what_is_left(
    table: Folder, write: Callable[..., Any]
) -> None:
    write("before", [box(0, 0.9, 0, 0, 10, 10), box(1, 0.8, 1, 0, 11, 10)])
    write("after", [box(0, 0.8, 1, 0, 11, 10), box(1, 0.7, 2, 0, 12, 10)])
    # The first one is box 1 itself. The second one would rather have box 1, and overlaps box 0 too.
    assert told(table) == {("matched", 1, 0): 1, ("matched", 0, 1): 1}


def test_the_overlap_that_is_asked_for_is_enough(table: Folder, write: Callable[..., Any]) -> None:
    write("before", [box(0, 0.9, 0, 0, 10, 10)])
    write("after", [box(0, 0.9, 0, 0, 10, 5)])  # half of it
    assert told(table) == {("matched", 0, 0): 1}
    assert told(table, iou=0.51) == {("lost", 0, None): 1, ("new", None, 0): 1}


def test_a_run_is_like_itself_even_in_boxes_without_area(
    table: Folder, write: Callable[..., Any]
) -> None:
    boxes = [box(0, 0.9, 5, 5, 5, 9), box(1, 0.8, 5, 5, 5, 9), box(2, 0.7, 0, 0, 5, 9)]
    write("before", boxes)
    write("after", boxes)
    with compare(config(table)) as compared:
        assert [row["change"] for row in changes(compared)] == ["matched"] * 3


def test_boxes_below_the_score_are_left_out_on_both_sides(
    table: Folder, write: Callable[..., Any]
) -> None:
    write("before", [box(0, 0.7, 0, 0, 10, 10), box(1, 0.2, 50, 50, 60, 60)])
    write("after", [box(0, 0.6, 0, 0, 10, 10)])
    assert told(table, min_score=0.7) == {("lost", 0, None): 1}
    assert told(table, min_score=0.3) == {("matched", 0, 0): 1}


def random_boxes(rng: np.random.Generator, num_images: int) -> list[Row]:
    """Crowded photos: boxes of few places and sizes, so that many want the same one."""
    boxes = []
    for number in range(num_images):
        scores = np.sort(rng.integers(1, 40, rng.integers(0, 9)) / 40)[::-1]  # some are equal
        for index, score in enumerate(scores.tolist()):
            x1, y1 = (4.0 * rng.integers(0, 4, 2)).tolist()
            width, height = (8.0 + 4 * rng.integers(0, 3, 2)).tolist()
            name = str(rng.choice(["cat", "dog"]))
            uri = f"s3://photos/{number:05d}.jpg"
            boxes.append(box(index, score, x1, y1, x1 + width, y1 + height, name=name, uri=uri))
    return boxes


def iou(a: Row, b: Row) -> float:
    width = min(a["x2"], b["x2"]) - max(a["x1"], b["x1"])
    height = min(a["y2"], b["y2"]) - max(a["y1"], b["y1"])
    shared = max(width, 0) * max(height, 0)
    areas = [(box["x2"] - box["x1"]) * (box["y2"] - box["y1"]) for box in (a, b)]
    return shared / (sum(areas) - shared)


def plain_loop(
    before: list[Row], after: list[Row], least: float
) -> Iterator[tuple[str, str, int | None, int | None]]:
    """The rule, word for word."""
    free = list(before)
    for new in sorted(after, key=lambda row: -row["score"]):
        rivals = [
            old
            for old in free
            if (old["image_uri"], old["class_name"]) == (new["image_uri"], new["class_name"])
            and iou(old, new) >= least
        ]
        if not rivals:
            yield new["image_uri"], "new", None, new["detection_index"]
            continue
        best = max(rivals, key=lambda old: iou(old, new))  # of equal ones the first
        free.remove(best)
        yield new["image_uri"], "matched", best["detection_index"], new["detection_index"]
    for old in free:
        yield old["image_uri"], "lost", old["detection_index"], None


@pytest.mark.parametrize("least", [0.3, 0.5, 0.75])
def test_random_boxes_match_as_in_a_plain_loop(
    table: Folder,
    write: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    least: float,
) -> None:
    monkeypatch.setattr(matching, "PHOTOS_AT_ONCE", 7)
    rng = np.random.default_rng(0)
    before, after = random_boxes(rng, 100), random_boxes(rng, 100)
    write("before", before, 100)
    write("after", after, 100)
    with compare(config(table, iou=least)) as compared:
        found = [
            (row["image_uri"], row["change"], row["before_index"], row["after_index"])
            for batch in compared.changes(photos_at_once=13)
            for row in batch.to_pylist()
        ]
        counts = compared.counts()
    expected = list(plain_loop(before, after, least))
    assert Counter(found) == Counter(expected)
    assert found == sorted(found, key=lambda row: row[0])  # photo by photo
    kinds = Counter(kind for _, kind, _, _ in expected)
    assert (counts.matched, counts.new, counts.lost) == tuple(
        kinds[kind] for kind in ("matched", "new", "lost")
    )
    assert (counts.before, counts.after) == (len(before), len(after))
    changed = {uri for uri, kind, _, _ in expected if kind != "matched"}
    assert (counts.photos, counts.changed) == (100, len(changed))
    assert min(kinds.values()) > 10  # each kind was put to the test


def test_changes_are_an_arrow_stream_of_one_schema(
    table: Folder, write: Callable[..., Any]
) -> None:
    write("before", [box(0, 0.9, 0, 0, 10, 10)])
    write("after", [])
    with compare(config(table)) as compared:
        reader = pa.RecordBatchReader.from_batches(CHANGES, compared.changes())
        [row] = reader.read_all().to_pylist()
    assert row["change"] == "lost"


def test_classes_tell_boxes_and_how_scores_have_moved(
    table: Folder, write: Callable[..., Any]
) -> None:
    places = [(20.0 * n, 0.0, 20.0 * n + 10, 10.0) for n in range(5)]
    write("before", [box(n, 0.5, *place) for n, place in enumerate(places)])
    moved = [box(n, 0.5 + n / 16, *place) for n, place in enumerate(places)]
    write("after", [*moved[::-1], box(5, 0.1, 0, 0, 9, 9, name="dog")])
    with compare(config(table)) as compared:
        cat, dog = compared.classes().to_pylist()
    assert cat == {
        "class_name": "cat",
        **{"before": 5, "after": 5, "matched": 5, "new": 0, "lost": 0},
        # Of 0, 1, 2, 3 and 4 sixteenths; between the first two lies a fifth of the way.
        "drift_5": pytest.approx(0.2 / 16),
        "drift_25": 1 / 16,
        "drift_50": 2 / 16,
        "drift_75": 3 / 16,
        "drift_95": pytest.approx(3.8 / 16),
    }
    assert (dog["before"], dog["new"], dog["drift_50"]) == (0, 1, None)


@pytest.fixture
def in_folders(labelled_run: Callable[..., Any], table: Folder) -> None:
    """Two cats in each of three folders, of which the second run lost all of one, half of another.

    A photo without boxes lies beside the folders.
    """
    uris = [
        *("s3://photos/2026/a/x/1.jpg", "s3://photos/2026/a/y/2.jpg"),
        *("s3://photos/2026/b/x/1.jpg", "s3://photos/2026/0.jpg"),
    ]
    for run, counts in (("before", (1, 1, 2, 0)), ("after", (0, 1, 0, 0))):
        made = labelled_run(run, num_images=4)
        made.images[0] = [
            row | {"image_uri": uri, "labelled_at": datetime(2026, 11, 21 + n // 2, tzinfo=UTC)}
            for n, (row, uri) in enumerate(zip(made.images[0], uris, strict=True))
        ]
        made.detections[0] = [
            box(n, 0.9, 20 * n, 0, 20 * n + 10, 10, uri=uri)
            for uri, count in zip(uris, counts, strict=True)
            for n in range(count)
        ]
        made.write(table)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            {},
            [
                ("s3://photos/2026/b/", 1, 1, 2),
                ("s3://photos/2026/a/", 2, 1, 1),
                ("s3://photos/2026/", 1, 0, 0),
            ],
        ),
        (
            {"depth": 2},
            [
                ("s3://photos/2026/b/x/", 1, 1, 2),
                ("s3://photos/2026/a/x/", 1, 1, 1),
                ("s3://photos/2026/", 1, 0, 0),
                ("s3://photos/2026/a/y/", 1, 0, 0),
            ],
        ),
        ({"by": "day"}, [(date(2026, 11, 22), 2, 1, 2), (date(2026, 11, 21), 2, 1, 1)]),
    ],
)
def test_changes_are_counted_by_folder_and_by_day(
    table: Folder, in_folders: None, more: Row, expected: list[tuple[Any, ...]]
) -> None:
    with compare(config(table, **more)) as compared:
        groups = compared.groups().to_pylist()
    key = next(iter(groups[0]))
    assert key == more.get("by", "prefix")
    assert [(g[key], g["photos"], g["changed"], g["lost"]) for g in groups] == expected


def test_the_photos_that_changed_most_come_first_and_the_unchanged_never(
    table: Folder, in_folders: None
) -> None:
    with compare(config(table)) as compared:
        found = [(row["image_uri"], row["lost"]) for row in compared.most_changed().to_pylist()]
    assert found == [("s3://photos/2026/b/x/1.jpg", 2), ("s3://photos/2026/a/x/1.jpg", 1)]
    with compare(config(table, top=1)) as compared:
        assert len(compared.most_changed()) == 1


def test_the_changes_of_some_photos_are_theirs_among_all(table: Folder, in_folders: None) -> None:
    photos = ["s3://photos/2026/b/x/1.jpg", "s3://photos/2026/a/y/1.jpg"]
    with compare(config(table)) as compared:
        found, all_changes = compared.changes_on(photos), changes(compared)
    assert found.schema == CHANGES
    assert found.to_pylist() == [row for row in all_changes if row["image_uri"] in photos]
    assert len(found)


def test_photos_that_one_run_did_not_label_are_counted_and_not_compared(
    table: Folder, labelled_run: Callable[..., Any]
) -> None:
    before, after = labelled_run("before", num_images=10), labelled_run("after", num_images=12)
    first, second = after.images[0][:2]
    first |= {"status": "failed", "error_kind": "gone"}
    before.images[0][1] |= {"status": "failed", "error_kind": "gone"}
    assert second["status"] == "labelled"
    before.write(table)
    after.write(table)
    with compare(config(table)) as compared:
        # 4 and 9 failed in both, 0 fails after, 1 failed before; 10 and 11 are new.
        assert compared.photos() == {
            "labelled_by_both": 6,
            "failed_after": 1,
            "failed_before": 1,
            "failed_in_both": 2,
            "only_before": 0,
            "only_after": 2,
        }
        counts = compared.counts()
    # 2, 5, 6 and 7 have 3, 3, 1 and 2 boxes.
    assert (counts.photos, counts.matched, counts.new, counts.lost) == (6, 9, 0, 0)


def test_runs_of_two_tables_are_compared(
    table: Folder, labelled_run: Callable[..., Any], bucket: Any
) -> None:
    labelled_run("before", num_images=10).write(table)
    other = Folder(f"s3://{bucket.name}/labels")
    labelled_run("after", num_images=10).write(other)
    with compare(config(table, after_table=other.uri)) as compared:
        assert compared.counts().matched == 12


def test_runs_without_boxes_are_alike(table: Folder, write: Callable[..., Any]) -> None:
    write("before", [], num_detections=0)
    write("after", [], num_detections=0)
    with compare(config(table)) as compared:
        assert (compared.counts().photos, compared.counts().changed) == (1, 0)
        assert changes(compared) == []
        assert compared.classes().num_rows == 0
        assert compared.groups()["photos"].to_pylist() == [1]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"before": "lost"}, "has no run 'lost'"),
        ({"after": "lost"}, "has no run 'lost'"),
        ({"table": "/nowhere"}, "/nowhere is not a table"),
        ({"after_table": "/nowhere"}, "/nowhere is not a table"),
    ],
)
def test_an_unknown_run_or_table_is_refused(
    table: Folder, labelled_run: Callable[..., Any], more: dict[str, str], said: str
) -> None:
    labelled_run("before").write(table)
    labelled_run("after").write(table)
    given = {"table": table.uri, "before": "before", "after": "after", **more}
    with pytest.raises(InputError, match=said), compare(ComparisonConfig(**given)):
        pass


def test_runs_that_share_no_photo_are_refused_for_nothing_would_be_lost(
    table: Folder, write: Callable[..., Any]
) -> None:
    write("before", [])
    uri = {"image_uri": "s3://photos/other.jpg"}
    write("after", [], **uri)
    with pytest.raises(InputError, match="no photo was labelled both by"), compare(config(table)):
        pass


def test_a_table_that_cannot_be_read_is_refused(
    table: Folder, labelled_run: Callable[..., Any]
) -> None:
    labelled_run("before").write(table)
    folders = labelled_run("after").write(table)
    folders.detections.write("part-00000000.parquet", b"no Parquet")
    with pytest.raises(InputError, match="cannot be read"), compare(config(table)):
        pass


@pytest.mark.parametrize(
    "wrong", [{"iou": 0}, {"iou": 1.1}, {"min_score": -1}, {"depth": 0}, {"top": -1}]
)
def test_impossible_settings_are_refused(table: Folder, wrong: Row) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        config(table, **wrong)
