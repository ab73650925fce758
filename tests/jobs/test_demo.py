import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from jobs.demo import CHECKPOINT, NUM_BROKEN, NUM_IMAGES
from jobs.demo_correcting import NUM_REVIEWED
from pipelines.tables.query import open_table


def _demo(folder: Path) -> str:
    command = [sys.executable, "-m", "jobs.demo"]
    demo = subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True, timeout=300
    )
    return demo.stdout


@pytest.mark.ray
def test_the_demo_labels_learns_from_corrections_and_a_second_one_has_nothing_left_to_do(
    tmp_path: Path,
) -> None:
    first = _demo(tmp_path)
    listed = NUM_IMAGES + NUM_BROKEN
    assert f"listed {listed} = labelled {NUM_IMAGES} + failed {NUM_BROKEN}" in first
    for kind in ("corrupt", "empty_object", "not_an_image", "too_many_pixels", "truncated"):
        assert (
            f"failed, {kind}: 3" in first
        )  # the generator breaks files in these five ways in turn
    assert "images/s" in first
    assert cv2.imread(str(tmp_path / ".demo/contact_sheet.png")) is not None
    assert [path.name for path in tmp_path.iterdir()] == [".demo"]
    runs = open_table(str(tmp_path / ".demo/table")).runs.to_pylist()
    learnt = str(tmp_path / ".demo/training/best.pth")
    weights = {run["run"]: run["weights_uri"] for run in runs}
    assert weights == {"demo": str(CHECKPOINT), "corrected": learnt}

    assert f"{NUM_REVIEWED} photos corrected" in first
    before, after = map(float, re.findall(r"AP on .*: (\S+) before, (\S+) after", first)[0])
    assert after > before
    page = tmp_path / re.findall(r"in a browser: (.*)", first)[0]
    assert "changes from run demo to run corrected" in page.read_text()

    second = _demo(tmp_path)
    assert "nothing left to do" in second
    assert second.splitlines()[-4:-1] == first.splitlines()[-4:-1]  # AP, boxes, page
    assert open_table(str(tmp_path / ".demo/table")).images.count_rows() == 2 * listed
