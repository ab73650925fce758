from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
import ray
import ray.data

from pipelines.detectors.contract import DetectorSettings, LabelledImage
from pipelines.labelling.blocks import DETECTED, FETCHED, PART_KEYS
from pipelines.labelling.detecting import detect_block
from pipelines.labelling.monitor import start_monitor
from pipelines.labelling.stages import DetectStage, KeptBytes
from pipelines.photos.errors import ErrorKind, ImageError
from pipelines.planning import ActorPlan
from tests.stand_in import found_in


class _Answers:
    """A detector that has been told what to say."""

    class_names = ("cat", "dog")

    def __init__(self, answers: Sequence[object]) -> None:
        self._answers = answers

    def __call__(self, bodies: Sequence[bytes]) -> Sequence[object]:
        return self._answers


def _fetched(bodies: Sequence[bytes | ImageError]) -> pa.Table:
    rows = [
        {
            "part": row // 2,
            "part_rows": 2,
            "image_uri": f"photo-{row}",
            "etag": f"etag-{row}",
            "size_bytes": 9,
            "data": None if isinstance(body, ImageError) else body,
            "error_kind": str(body.kind) if isinstance(body, ImageError) else None,
            "error_message": str(body) if isinstance(body, ImageError) else None,
            "fetch_seconds": 0.5,
            "retries": row,
        }
        for row, body in enumerate(bodies)
    ]
    return pa.Table.from_pylist(rows, schema=FETCHED)


def _image(boxes: Sequence[object], scores: Sequence[float], class_id: int = 0) -> LabelledImage:
    boxes_xyxy = np.array(boxes, np.float32).reshape(-1, 4)
    class_ids = np.full(len(scores), class_id)
    return LabelledImage(50, 40, boxes_xyxy, np.array(scores, np.float32), class_ids)


def _rows(*answers: object) -> list[dict]:
    """What becomes of answers, one for each image."""
    return detect_block(_Answers(answers), _fetched([b""] * len(answers))).to_pylist()


def test_what_was_fetched_becomes_rows_and_what_was_not_keeps_its_error() -> None:
    bodies = [ImageError(ErrorKind.DENIED, "403"), b"", ImageError(ErrorKind.GONE, "404"), b""]
    answers = [_image([[1, 2, 3, 4]], [0.5], class_id=1), ImageError(ErrorKind.CORRUPT, "no")]
    detected = detect_block(_Answers(answers), _fetched(bodies))
    assert detected.schema.equals(DETECTED)
    denied, labelled, gone, corrupt = detected.to_pylist()
    for row in (denied, gone, corrupt):
        assert (row["width"], row["height"], row["found"]) == (None, None, [])
    assert (denied["error_kind"], denied["error_message"]) == ("denied", "403")
    assert (gone["error_kind"], corrupt["error_kind"]) == ("gone", "corrupt")
    assert (labelled["width"], labelled["height"], labelled["error_kind"]) == (50, 40, None)
    box = {"x1": 1.0, "y1": 2.0, "x2": 3.0, "y2": 4.0}
    assert labelled["found"] == [{"class_id": 1, "class_name": "dog", "score": 0.5} | box]


def test_part_uri_seconds_and_retries_pass_through() -> None:
    fetched = _fetched([b"a", ImageError(ErrorKind.GONE, ""), b"b"])
    detected = detect_block(_Answers([_image([], [])] * 2), fetched)
    for name in (*PART_KEYS, "image_uri", "etag", "size_bytes", "fetch_seconds", "retries"):
        assert detected[name].equals(fetched[name]), name


def test_no_rows_and_only_errors_ask_nothing_of_the_detector() -> None:
    assert detect_block(_Answers([]), _fetched([])).schema.equals(DETECTED)
    error = ImageError(ErrorKind.GONE, "")
    assert len(detect_block(_Answers([]), _fetched([error, error]))) == 2


def test_boxes_are_clipped_to_their_image_and_dropped_where_nothing_is_left() -> None:
    beyond, beside, inverted = [-5, 10, 60, 45], [50, 0, 60, 10], [20, 20, 10, 30]
    [row] = _rows(_image([beside, beyond, inverted], [0.9, 0.8, 0.7]))
    [box] = row["found"]
    assert [box[name] for name in ("x1", "y1", "x2", "y2")] == [0, 10, 50, 40]
    assert box["score"] == pytest.approx(0.8)


def test_boxes_of_each_image_are_numbered_by_falling_score() -> None:
    box = [0, 0, 10, 10]
    rows = _rows(_image([box] * 3, [0.2, 0.9, 0.5]), _image([], []), _image([box] * 2, [0.1, 1]))
    scores = [[found["score"] for found in row["found"]] for row in rows]
    assert scores == [pytest.approx([0.9, 0.5, 0.2]), [], pytest.approx([1, 0.1])]


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
def test_an_image_with_a_box_or_a_score_that_is_no_number_fails_alone(wrong: float) -> None:
    good = _image([[0, 0, 10, 10]], [0.5])
    box, score = _image([[0, 0, 10, 10], [0, 0, wrong, 10]], [0.5, 0.4]), _image([[0] * 4], [wrong])
    rows = _rows(good, box, score, good)
    assert [row["error_kind"] for row in rows] == [None, "not_finite", "not_finite", None]
    assert [len(row["found"]) for row in rows] == [1, 0, 0, 1]


@pytest.mark.parametrize(
    ("answers", "complaint"),
    [
        ([], "0 answers for 1 images"),
        ([_image([], []), _image([], [])], "2 answers for 1 images"),
        ([None], "answered with a NoneType: must be a LabelledImage"),
        ([_image([[0, 0, 1, 1]], [0.5, 0.4])], r"shapes \(\(1, 4\), \(2,\), \(2,\)\): must be"),
        ([_image([[0, 0, 1, 1]], [0.5], class_id=2)], "class id 2: .* between 0 and 1"),
        ([_image([[0, 0, 1, 1]], [0.5], class_id=-1)], "class id -1"),
    ],
)
def test_an_answer_against_the_contract_stops_the_run(
    answers: Sequence[object], complaint: str
) -> None:
    with pytest.raises(RuntimeError, match=complaint):
        detect_block(_Answers(answers), _fetched([b""]))


@pytest.mark.ray
def test_in_a_ray_actor_poison_costs_one_row_and_its_neighbours_nothing(
    local_ray, settings: DetectorSettings
) -> None:
    bodies = [b"%d" % number for number in range(64)]
    bodies[17], bodies[40], bodies[63] = b"CRASH", b"NAN", b"OOM"
    plan = ActorPlan(num_actors=1, cpus=1, gpus=0)
    given = ("tests.stand_in:StandIn", KeptBytes.of(b""), settings, plan, 60.0, start_monitor())
    detected = (
        ray.data.from_arrow(_fetched(bodies))
        .map_batches(
            DetectStage,
            fn_constructor_args=given,
            batch_format="pyarrow",
            batch_size=16,
            compute=ray.data.ActorPoolStrategy(size=1),
        )
        .take_all()
    )
    failed = {row["image_uri"]: row["error_kind"] for row in detected if row["error_kind"]}
    assert failed == {"photo-17": "crashed", "photo-40": "not_finite", "photo-63": "out_of_memory"}
    for row in detected:
        if not row["error_kind"]:
            expected = found_in(bodies[row["retries"]])
            assert len(row["found"]) == len(expected.scores)
    assert len(detected) == 64
