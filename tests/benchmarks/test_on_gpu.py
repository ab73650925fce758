import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.on_gpu import __main__ as on_gpu
from benchmarks.on_gpu import forward, group, loss, precision, resume
from benchmarks.on_gpu.running import CUT_OFF, DONE, FAILED, SKIPPED, Part, run_part, run_parts
from benchmarks.on_gpu.sizes import TINY, Sizes, Skipped
from benchmarks.on_gpu.trainers import new_trainer, short_recipe, some_batches
from benchmarks.on_gpu.waits import host_waits
from tests import parts as stand_ins
from yolox_core import build_model

CPU = torch.device("cpu")
SIZES = Sizes(device="cpu", **TINY)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # Threads wait for each other where others want the cores too.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_what_happens_to_a_part_costs_that_part_alone() -> None:
    measures = (stand_ins.raising, stand_ins.dying, stand_ins.skipped, stand_ins.good)
    parts = [Part(measure.__name__, 1, measure) for measure in measures]
    told = [
        (result["ended"], result.get("reason"), result["found"])
        for result in run_parts(parts, SIZES, seconds=600)
    ]
    assert told == [
        (FAILED, "RuntimeError: out of luck", [{"before": 1}]),
        (FAILED, "its process died", [{"before": 1}]),
        (SKIPPED, "there is no moon here", []),
        (DONE, None, [{"device": "cpu"}]),
    ]


def test_a_part_whose_time_is_over_ends_with_all_that_it_started_and_keeps_what_it_found() -> None:
    result = run_part(Part("endless", 1, stand_ins.endless), SIZES, seconds=6)
    assert (result["ended"], result["reason"]) == (CUT_OFF, "its share of the time was over")
    [found] = result["found"]
    assert not any(map(_is_running, found["pids"]))


def _is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_ap_is_skipped_where_the_photos_are_not(tmp_path: Path) -> None:
    with pytest.raises(Skipped, match=r"coco_val79 is not there: give the folder .* as --shared"):
        list(precision.measure(dataclasses.replace(SIZES, shared=tmp_path)))


def test_operations_are_counted_as_published() -> None:
    canvases = forward.random_canvases(1, 416, CPU)
    # https://github.com/Megvii-BaseDetection/YOLOX: 1.08 G at 416 px.
    counted = forward.flops(forward.ready_model(build_model("nano"), CPU), canvases)
    assert counted == pytest.approx(1.08e9, rel=0.05)


def test_each_model_is_measured_at_each_batch_size() -> None:
    _, *found = forward.measure(SIZES)
    assert [(each["model"], each["mode"], each["batch_size"]) for each in found] == [
        ("nano@64", "eager", 1),
        ("nano@64", "eager", 2),
    ]


def test_the_loss_is_held_against_the_loop() -> None:
    step, crowd, compared = loss.measure(SIZES)
    assert step["training_step"]["batch_size"] == 4
    assert crowd["crowd"]["targets_per_image"] == 20
    assert compared["assignments_identical"]


def test_on_a_cpu_a_resumed_training_is_an_unbroken_one() -> None:
    for found in resume.measure(SIZES):
        assert found["again"]["bit_for_bit"]
        assert found["resumed"] == {
            "bit_for_bit": True,
            "largest_difference": 0.0,
            "relative_difference": 0.0,
        }


def test_trainings_that_differ_in_one_weight_are_not_alike() -> None:
    recipe = short_recipe("nano", 64, batch_size=4)
    one, other = (new_trainer(recipe, steps=1, device=CPU) for _ in range(2))
    assert resume.apart(one, other)["bit_for_bit"]
    with torch.no_grad():
        other.model.head.obj_preds[0].bias += 0.25
    found = resume.apart(one, other)
    assert not found["bit_for_bit"]
    assert found["largest_difference"] == pytest.approx(0.25)


def test_batches_have_the_photos_of_their_seed() -> None:
    recipe = short_recipe("nano", 64, batch_size=2)
    first, other = (some_batches(recipe, 2, 1, CPU, seed=seed)[0] for seed in (0, 1))
    assert first.canvases.shape == (2, 64, 64, 3)
    assert not first.canvases.equal(other.canvases)


@pytest.mark.slow
def test_workers_that_share_a_device_keep_the_same_weights() -> None:
    alone, shared = run_part(Part("group", 1, group.measure), SIZES, seconds=600)["found"]
    assert alone["workers"] == 1
    assert alone["largest_difference_of_gradients"] == 0
    assert shared["workers"] == 2
    assert shared["weights_alike"]
    assert len(set(shared["losses"])) == 2  # they see other photos


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_wait_for_the_gpu_is_counted_with_its_place() -> None:
    value = torch.ones((), device="cuda")
    assert host_waits(lambda: value + 1) == {}
    [(place, count)] = host_waits(lambda: value.item()).items()
    assert place.startswith("test_on_gpu.py:")
    assert count == 1


@pytest.mark.ray
@pytest.mark.soak
def test_the_whole_script_runs_in_miniature(capsys, monkeypatch, shared: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["on_gpu", "--device", "cpu", "--tiny", "--minutes", "20"])
    on_gpu.main()
    *lines, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert [(line["part"], line["ended"]) for line in lines] == [
        (part.name, DONE) for part in on_gpu.PARTS
    ]
    assert all(line["machine"]["device"] == "cpu" for line in lines)
    assert last["parts"] == [{k: v for k, v in line.items() if k != "machine"} for line in lines]
    short, long = (found for found in lines[1]["found"] if "labelled" in found)
    assert short["labelled"] == long["labelled"] == SIZES.first_photos
