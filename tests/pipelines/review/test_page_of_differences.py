"""The page of a diff: what was lost, new and matched, in a real browser."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.comparison import ComparisonConfig, compare
from pipelines.datasets import PrepareConfig, prepare
from pipelines.review import ReviewConfig, changed_photos, write_review
from pipelines.storage import Folder
from tests.conftest import LabelledRun
from tests.pipelines.review.conftest import OpenReview, on_disk

ANOTHER_PLACE = {"x1": 600.0, "y1": 400.0, "y2": 480.0}


@pytest.fixture
def review(
    open_review: Callable[[str], OpenReview],
    labelled_run: Callable[..., LabelledRun],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> OpenReview:
    """Of 1.png, of whose two boxes one moved, and of 2.png, which lost the surest of three.

    What it lost may be given another class, which the second run has no box of.
    """
    table = Folder(str(tmp_path / "table"))
    before = on_disk(labelled_run("before", num_images=4), tmp_path)
    before.detections[0][3] |= getattr(request, "param", {})
    before.write(table)
    after = on_disk(labelled_run("after", num_images=4), tmp_path)
    boxes = after.detections[0]  # one of 0.png, two of 1.png, three of 2.png
    boxes[2] |= ANOTHER_PLACE
    boxes[4] |= {"score": 0.9}  # it was 0.43
    del boxes[3]
    after.write(table)
    shown = ReviewConfig(table=table.uri, output=str(tmp_path / "out"), run="after", threshold=0.0)
    with compare(ComparisonConfig(table=table.uri, before="before", after="after")) as compared:
        written = write_review(shown, changed_photos(compared, most=10))
    assert (written.photos, written.drawn_from) == (2, 2)
    return open_review(written.page)


def names(review: OpenReview) -> list[str]:
    found: list[str] = review.page.locator(".card > span").all_text_contents()
    return found


def test_lost_new_and_matched_boxes_differ_by_letter_and_dashes(review: OpenReview) -> None:
    assert names(review) == ["1.png", "2.png"]  # two changes, one change
    first = review.page.locator(".card").nth(0)
    assert first.locator("small").inner_text() == "1 lost, 1 new, 1 matched"
    assert sorted(first.locator("text").all_text_contents()) == ["L", "M", "N"]
    dashes = first.locator("rect").evaluate_all(
        "rects => rects.map(rect => rect.getAttribute('stroke-dasharray'))"
    )
    assert len(set(dashes)) == 3
    legend = review.page.locator("#kinds label").all_inner_texts()
    assert [entry.split() for entry in legend] == [
        ["L", "=", "lost", "2"],
        ["N", "=", "new", "1"],
        ["M", "=", "matched", "3"],
    ]


def test_a_kind_that_is_not_wanted_is_hidden(review: OpenReview) -> None:
    for kind in ("lost", "matched"):
        review.page.locator(f"#kinds label:has-text('{kind}') input").uncheck()
    assert [review.boxes(0), review.boxes(1)] == [1, 0]
    review.page.locator("#show").select_option("boxes")
    assert names(review) == ["1.png"]


def test_photos_can_be_ordered_by_how_much_the_runs_disagree(review: OpenReview) -> None:
    review.page.locator("#order").select_option("disagreement")
    # 2.png: 0.88 lost, and 0.43 became 0.9; 1.png: 0.44 lost, and 0.44 new.
    assert names(review) == ["2.png", "1.png"]


def test_a_lost_box_counts_only_when_a_person_keeps_it(review: OpenReview, tmp_path: Path) -> None:
    page = review.page
    page.locator(".card").nth(0).click()
    assert page.locator("#keep").is_visible()
    page.keyboard.press("a")
    page.keyboard.press("ArrowRight")
    assert page.locator("#boxes li").all_inner_texts() == [
        "matched cat 0.43 → 0.90",
        "lost bird 0.88",
        "matched dog 0.28 → 0.28",
    ]
    for key in ("b", "b", "k", "Escape"):
        page.keyboard.press(key)
    prepared = prepare(
        PrepareConfig(
            source=str(tmp_path / "table"),
            run="after",
            output=str(tmp_path / "train.parquet"),
            corrections=str(review.save()),
            min_score=0.99,
        )
    )
    rows = {Path(row["image_uri"]).name: row for row in prepared.table.to_pylist()}
    assert rows["1.png"]["sources"] == ["accepted", "accepted"]  # as the run has it
    assert sorted(rows["2.png"]["sources"]) == ["accepted", "accepted", "person"]
    assert rows["0.png"]["sources"] == []  # nobody looked at it, and the model is less sure


@pytest.mark.parametrize("review", [{"class_id": 3, "class_name": "fox"}], indirect=True)
def test_a_lost_box_of_a_class_that_the_run_has_not_stays_lost(review: OpenReview) -> None:
    page = review.page
    page.locator(".card").nth(1).click()
    for key in ("b", "b", "k", "Shift+ArrowRight", "4"):
        page.keyboard.press(key)
    assert page.locator("#boxes button[aria-pressed=true]").inner_text() == "lost fox 0.88"
    assert page.locator("#keep").is_disabled()
    assert "fox" not in page.locator("#class option").all_inner_texts()
    page.keyboard.press("Escape")
    [photo] = review.saved()["photos"]
    assert [box["class_name"] for box in photo["boxes"]] == ["cat", "dog"]


def test_nothing_is_fetched_but_the_folder_itself(review: OpenReview) -> None:
    review.page.locator(".card").nth(1).click()
    assert set(review.asked()) == {"index.html", "photos/00000.jpg", "photos/00001.jpg"}
