"""The page of a review, in a real browser."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.review.config import ReviewConfig
from pipelines.review.folder import write_review
from pipelines.storage import Folder
from tests.conftest import LabelledRun
from tests.pipelines.review.conftest import OpenReview, on_disk

EVIL = "<img src=x onerror=document.title='broken-into'>.png"


@pytest.fixture
def review(
    open_review: Callable[[str], OpenReview],
    labelled_run: Callable[..., LabelledRun],
    tmp_path: Path,
) -> OpenReview:
    """Of five photos, by name: with one, two, three boxes, without one, and a failed one."""
    run = on_disk(labelled_run("night", num_images=5), tmp_path, suffix_of_first=EVIL)
    run.write(Folder(str(tmp_path / "table")))
    config = ReviewConfig(table=f"{tmp_path}/table", output=f"{tmp_path}/out", threshold=0.0)
    opened = open_review(write_review(config).page)
    opened.page.locator("#order").select_option("name")
    return opened


def test_the_slider_hides_boxes_at_once(review: OpenReview) -> None:
    assert [review.boxes(card) for card in range(4)] == [1, 2, 3, 0]
    review.set_threshold(0.6)  # the first box of each has more, the others less
    assert sum(review.boxes(card) for card in range(4)) == 3
    assert "5 photos, 3 boxes, 1 failed" in review.page.locator("#counts").inner_text()


def test_a_class_that_is_not_wanted_is_hidden(review: OpenReview) -> None:
    count = int(review.page.locator("#classes label:has-text('dog') b").inner_text())
    assert count > 0
    review.page.locator("#classes label:has-text('dog') input").uncheck()
    assert sum(review.boxes(card) for card in range(4)) == 6 - count


def test_what_was_corrected_by_keys_is_in_the_saved_file(review: OpenReview) -> None:
    page = review.page
    page.locator("#by").fill("Ann")
    page.locator(".card").nth(1).click()
    for key in ("b", "2", "Shift+ArrowRight", "ArrowRight", "a", "ArrowRight", "r"):
        page.keyboard.press(key)
    page.keyboard.press("Escape")
    saved = review.saved()
    assert (saved["format"], saved["version"]) == ("yolox-ray corrections", 1)
    photos = sorted(saved["photos"], key=lambda photo: photo["image_uri"])
    assert [photo["decision"] for photo in photos] == ["corrected", "accepted", "rejected"]
    corrected, accepted, rejected = photos
    assert {photo["by"] for photo in photos} == {"Ann"}
    assert corrected["run"] == "night"
    changed, same = corrected["boxes"]
    assert (changed["class_name"], changed["source"], changed["score"]) == ("dog", "person", None)
    assert same["source"] == "model"
    assert len(accepted["boxes"]) == 3
    assert rejected["boxes"] == []


def test_what_was_decided_is_still_there_when_the_page_is_opened_again(review: OpenReview) -> None:
    review.page.locator(".card").nth(0).click()
    review.page.keyboard.press("a")
    review.page.reload()
    review.page.wait_for_selector("body[data-ready]")
    assert review.saved()["photos"][0]["decision"] == "accepted"


def test_a_box_that_is_drawn_with_the_mouse_is_in_the_photos_own_pixels(review: OpenReview) -> None:
    page = review.page
    page.locator(".card").nth(3).click()
    page.keyboard.press("d")
    # The middle quarter of a photo of 640 x 480 px.
    place = page.evaluate(
        "(() => { const matrix = document.getElementById('overlay').getScreenCTM();"
        " const at = (x, y) => new DOMPoint(x, y).matrixTransform(matrix);"
        " return [at(160, 120), at(480, 360)].map(({ x, y }) => [x, y]) })()"
    )
    page.mouse.move(*place[0])
    page.mouse.down()
    page.mouse.move(*place[1], steps=3)
    page.mouse.up()
    page.keyboard.press("Escape")
    [box] = review.saved()["photos"][0]["boxes"]
    assert [box[side] for side in ("x1", "y1", "x2", "y2")] == pytest.approx(
        [160, 120, 480, 360], abs=2
    )


# text_content: a card out of the window has no inner text, as it isn't laid out.
def test_a_failed_photo_says_why_and_cannot_be_accepted(review: OpenReview) -> None:
    assert "corrupt: no pixels" in review.page.locator(".card").nth(4).text_content()
    review.page.locator(".card").nth(4).click()
    review.page.keyboard.press("a")
    review.page.keyboard.press("Escape")
    assert review.saved()["photos"] == []


def test_a_name_is_text_whatever_it_says(review: OpenReview) -> None:
    assert EVIL in review.page.locator(".card").nth(0).text_content()
    assert review.page.title().startswith("Review of ")


def test_nothing_is_fetched_but_the_folder_itself(review: OpenReview) -> None:
    review.page.locator(".card").nth(0).click()
    asked = review.asked()
    assert not [url for url in asked if ":" in url]
    assert len(asked) >= 5  # the page, and four pictures
