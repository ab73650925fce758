"""Reviews that are open in a real browser."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.conftest import LabelledRun

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@dataclass(frozen=True)
class OpenReview:
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

    def save(self) -> Path:
        with self.page.expect_download() as download:
            self.page.locator("#save").click()
        assert download.value.suggested_filename == "corrections.json"
        return Path(download.value.path())

    def saved(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.save().read_text())
        return found

    def asked(self) -> list[str]:
        """What was fetched, by its path in the review's folder or else its whole address."""
        own = self.requests[0].removesuffix("index.html")
        return [url.removeprefix(own) for url in self.requests if not url.startswith("blob:")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, of extra dev")
    if CHROMIUM is None:
        pytest.skip("needs Debian's chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_review(browser: Any) -> Iterator[Callable[[str], OpenReview]]:
    """Opens the page that lies at a path."""
    page = browser.new_page(accept_downloads=True)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))

    def open_page(path: str) -> OpenReview:
        page.goto(f"file://{path}")
        page.wait_for_selector("body[data-ready]")
        return OpenReview(page, requests)

    yield open_page
    page.close()


def on_disk(run: LabelledRun, folder: Path, suffix_of_first: str = ".png") -> LabelledRun:
    """The run, as one over photos that lie in a folder."""
    paths = {}
    for number, row in enumerate(run.manifest):
        path = folder / f"{number}{'.png' if number else suffix_of_first}"
        cv2.imwrite(str(path), np.full((480, 640, 3), 40 * number, np.uint8))
        paths[row["image_uri"]] = str(path)
    for rows in (*run.images.values(), *run.detections.values()):
        for row in rows:
            row["image_uri"] = paths[row["image_uri"]]
            row |= {"etag": None} if "etag" in row else {}
    return run
