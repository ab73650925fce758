"""The page of a review, in a real browser."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipelines.review.config import ReviewConfig
from pipelines.review.folder import write_review
from pipelines.storage import Folder
from tests.conftest import LabelledRun

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra dev")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")

EVIL = "<img src=x onerror=document.title='broken-into'>.png"


@dataclass(frozen=True)
class Review:
    """A review that is open in a browser."""

    page: Any
    requests: list[str]
    """The addresses of all that the browser asked for."""

    def boxes(self, card: int) -> int:
        return int(self.page.locator(".card").nth(card).locator("rect").count())

    def set_threshold(self, score: float) -> None:
        slider = self.page.locator("#threshold")
        slider.evaluate("(slider, score) => { slider.value = score }", score)
        slider.dispatch_event("input")

    def saved(self) -> dict[str, Any]:
        with self.page.expect_download() as download:
            self.page.locator("#save").click()
        assert download.value.suggested_filename == "corrections.json"
        found: dict[str, Any] = json.loads(Path(download.value.path()).read_text())
        return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def review(browser: Any, labelled_run: Any, tmp_path: Path) -> Iterator[Review]:
    """Of five photos, by name: with one, two, three boxes, without one, and a failed one."""
    written = _written(labelled_run, tmp_path)
    page = browser.new_page(accept_downloads=True)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(f"file://{written}")
    page.wait_for_selector("body[data-ready]")
    page.locator("#order").select_option("name")
    yield Review(page, requests)
    page.close()


def _written(labelled_run: Callable[..., LabelledRun], folder: Path) -> str:
    """The path of a page over photos of this disk."""
    run = labelled_run("night", num_images=5)
    paths = {}
    for number, row in enumerate(run.manifest):
        path = folder / f"{number}{EVIL if number == 0 else '.png'}"
        cv2.imwrite(str(path), np.full((480, 640, 3), 40 * number, np.uint8))
        paths[row["image_uri"]] = str(path)
    for rows in (*run.images.values(), *run.detections.values()):
        for row in rows:
            row["image_uri"] = paths[row["image_uri"]]
            row |= {"etag": None} if "etag" in row else {}
    run.write(Folder(str(folder / "table")))
    config = ReviewConfig(table=str(folder / "table"), output=str(folder / "out"), threshold=0.0)
    return write_review(config).page


def test_the_slider_hides_boxes_at_once(review: Review) -> None:
    assert [review.boxes(card) for card in range(4)] == [1, 2, 3, 0]
    review.set_threshold(0.6)  # the first box of each has more, the others less
    assert sum(review.boxes(card) for card in range(4)) == 3
    assert "5 photos, 3 boxes, 1 failed" in review.page.locator("#counts").inner_text()


def test_a_class_that_is_not_wanted_is_hidden(review: Review) -> None:
    count = int(review.page.locator("#classes label:has-text('dog') b").inner_text())
    assert count > 0
    review.page.locator("#classes label:has-text('dog') input").uncheck()
    assert sum(review.boxes(card) for card in range(4)) == 6 - count


def test_what_was_corrected_by_keys_is_in_the_saved_file(review: Review) -> None:
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


def test_what_was_decided_is_still_there_when_the_page_is_opened_again(review: Review) -> None:
    review.page.locator(".card").nth(0).click()
    review.page.keyboard.press("a")
    review.page.reload()
    review.page.wait_for_selector("body[data-ready]")
    assert review.saved()["photos"][0]["decision"] == "accepted"


def test_a_box_that_is_drawn_with_the_mouse_is_in_the_photos_own_pixels(review: Review) -> None:
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
def test_a_failed_photo_says_why_and_cannot_be_accepted(review: Review) -> None:
    assert "corrupt: no pixels" in review.page.locator(".card").nth(4).text_content()
    review.page.locator(".card").nth(4).click()
    review.page.keyboard.press("a")
    review.page.keyboard.press("Escape")
    assert review.saved()["photos"] == []


def test_a_name_is_text_whatever_it_says(review: Review) -> None:
    assert EVIL in review.page.locator(".card").nth(0).text_content()
    assert review.page.title().startswith("Review of ")


def test_nothing_is_fetched_but_the_folder_itself(review: Review) -> None:
    review.page.locator(".card").nth(0).click()
    own = review.requests[0].removesuffix("index.html")
    asked = [url for url in review.requests if not url.startswith("blob:")]
    assert all(url.startswith(own) for url in asked)
    assert len(asked) >= 5  # the page, and four pictures
