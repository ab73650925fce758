import os
import signal

import pyarrow as pa
import pytest
import ray

from pipelines.detectors.contract import DetectorSettings
from pipelines.labelling import stages
from pipelines.labelling.blocks import DETECTED, FETCHED
from pipelines.labelling.monitor import start_monitor
from pipelines.labelling.stages import DetectStage, KeptBytes
from pipelines.planning import ActorPlan

pytestmark = pytest.mark.ray

SETTINGS = DetectorSettings(
    input_size=(64, 64),
    score_threshold=0.1,
    nms_threshold=0.5,
    max_pixels=100,
    batch_size=2,
    threads=1,
    device="cpu",
)


def _row(number: int, error_kind: str | None) -> dict:
    return {
        "part": 3,
        "part_rows": 5,
        "image_uri": str(number),
        "data": None if error_kind else bytes([number]),
        "error_kind": error_kind,
        "fetch_seconds": 0.5,
        "retries": 0,
    }


def test_a_part_that_is_asked_about_in_pieces_comes_out_as_if_it_were_not(
    monkeypatch, local_ray
) -> None:
    kinds = (None, "gone", None, "denied", None)
    rows = [_row(number, kind) for number, kind in enumerate(kinds)]
    fetched = pa.Table.from_pylist(rows, schema=FETCHED)
    weights, plan = KeptBytes.of(b""), ActorPlan(num_actors=1, cpus=1, gpus=0)
    given = ("benchmarks.stand_ins:BlindDetector", weights, SETTINGS, plan, 60.0, start_monitor())
    whole = DetectStage(*given)(fetched)
    monkeypatch.setitem(stages.IMAGES_AT_ONCE, SETTINGS.device, 2)
    pieces = DetectStage(*given)(fetched)
    assert pieces.schema.equals(DETECTED)
    times = ["labelled_at", "detect_seconds"]
    assert pieces.drop_columns(times).to_pylist() == whole.drop_columns(times).to_pylist()
    assert pieces["error_kind"].to_pylist() == list(kinds)


class _Stage(DetectStage):
    def pid(self) -> int:
        return os.getpid()


def test_a_detector_whose_actor_was_killed_loads_the_same_weights_again(local_ray) -> None:
    weights = KeptBytes.of(b"w" * 200_000)  # beyond 100 kB Ray itself does not keep an argument
    plan, monitor = ActorPlan(num_actors=1, cpus=1, gpus=0), start_monitor()
    actor = ray.remote(max_restarts=-1, max_task_retries=-1)(_Stage).remote(
        "tests.stand_in:Weighing", weights, SETTINGS, plan, 60.0, monitor
    )
    first = ray.get(actor.pid.remote())
    os.kill(first, signal.SIGKILL)
    rows = pa.Table.from_pylist([_row(number, None) for number in range(5)], schema=FETCHED)
    found = ray.get(actor.__call__.remote(rows), timeout=300)["found"].to_pylist()
    assert {box["class_name"] for boxes in found for box in boxes} == {"200000 bytes"}
    assert ray.get(actor.pid.remote()) != first
