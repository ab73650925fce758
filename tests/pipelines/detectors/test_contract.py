import subprocess
import sys

import pytest

from pipelines.detectors.contract import YOLOX, load_detector_class
from pipelines.detectors.yolox import YoloxDetector
from pipelines.errors import InputError
from tests.stand_in import StandIn


def test_a_detector_is_found_by_its_name() -> None:
    assert load_detector_class(YOLOX) is YoloxDetector
    assert load_detector_class("tests.stand_in:StandIn") is StandIn


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("", "detector='': must be yolox or package.module:Class"),
        ("pipelines.detectors.yolox", "must be yolox or package.module:Class"),
        ("pipelines.detectors.yolox:", "must be yolox or package.module:Class"),
        ("no.such.module:Detector", r"no\.such\.module .* ModuleNotFoundError.* installed, or lie"),
        ("pipelines.detectors.yolox:Detektor", "has no class Detektor"),
        ("pipelines.photos.decoding:decode_image", "has no class decode_image"),
        (
            "pipelines.detectors.contract:LabelledImage",
            "whose objects can be called: .*ImageDetector",
        ),
    ],
)
def test_a_name_that_is_no_detector_is_refused_with_the_rule(name: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        load_detector_class(name)


def test_what_holds_a_detector_need_not_wait_for_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import pipelines.labelling.stages"
    subprocess.run([sys.executable, "-c", code], check=True)
