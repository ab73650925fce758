import json
import sys

import pytest
import torch

from benchmarks import bench_loss
from benchmarks.loop_loss import loop_assign, loop_loss
from benchmarks.memory import in_own_process
from yolox_core import OFFICIAL_RULE, YOLOXLoss, anchor_points, simota_assign
from yolox_core.anchors import decode_boxes, flatten_levels

SIZE = 96


def tiny_batch() -> tuple[list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    targets = bench_loss.random_targets(2, SIZE, generator)
    return bench_loss.half_trained_outputs(targets, SIZE, generator), targets


def test_ours_and_the_loop_assign_alike() -> None:
    raw, targets = tiny_batch()
    assert bench_loss.identical_images(raw, targets) == 2


def test_they_assign_alike_on_cell_borders_and_outside_the_image() -> None:
    raw, _ = tiny_batch()
    centres = [(0, 0), (96, 96), (32, 32), (32, 33), (-4, 50), (44, 44), (12, 20), (300, 40)]
    rows = [[float(i), *centre, 20.0, 24.0] for i, centre in enumerate(centres)]
    assert bench_loss.identical_images(raw, torch.tensor([rows, rows[::-1]])) == 2


def test_an_image_that_is_assigned_otherwise_is_noticed() -> None:
    raw, targets = tiny_batch()
    flat, points = flatten_levels(raw), anchor_points(raw)
    boxes = decode_boxes(flat[..., :4], points)
    ours = simota_assign(boxes, flat[..., 4], flat[..., 5:], points, targets, OFFICIAL_RULE)
    match = loop_assign(flat, points, targets)[0]
    assert bench_loss._is_identical(ours, 0, match)
    assert not bench_loss._is_identical(ours, 1, match)
    swapped = match._replace(target_index=match.target_index.flip(0))
    assert not bench_loss._is_identical(ours, 0, swapped)


@pytest.mark.parametrize("use_l1", [False, True])
def test_ours_and_the_loop_give_the_same_terms_and_gradients(use_l1: bool) -> None:
    raw, targets = tiny_batch()
    raw = [output.requires_grad_() for output in raw]
    ours = YOLOXLoss(bench_loss.NUM_CLASSES)(raw, targets, use_l1=use_l1)
    loop = loop_loss(raw, targets, use_l1=use_l1)
    for name, term in loop.items():
        torch.testing.assert_close(ours[name], term, msg=name)
    gradients = (torch.autograd.grad(losses["total"], raw) for losses in (ours, loop))
    for of_ours, of_loop in zip(*gradients, strict=True):
        torch.testing.assert_close(of_ours, of_loop, atol=1e-6, rtol=1e-4)


def test_the_loop_waits_for_the_device_and_ours_does_not() -> None:
    raw, targets = tiny_batch()
    assert bench_loss.measure(loop_loss, raw, targets, repeats=1)["host_syncs"] > 20
    ours = bench_loss.measure(YOLOXLoss(bench_loss.NUM_CLASSES), raw, targets, repeats=1)
    assert ours["host_syncs"] == 0


def test_a_crowd_takes_less_than_half_a_gigabyte(monkeypatch: pytest.MonkeyPatch) -> None:
    # Threads wait for each other where others want the cores too.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    cpu = torch.device("cpu")
    measured = in_own_process(bench_loss.time_crowd, *bench_loss.CROWD, 640, cpu, repeats=1)
    assert measured["batch_size"] * measured["targets_per_image"] == 11_200
    assert measured["anchor_points"] == 8_400
    assert 45 < measured["peak_growth_mb"] < 500  # 45 is what its gradients take


def test_the_benchmark_prints_what_it_promises(capsys, monkeypatch) -> None:
    flags = ["--device", "cpu", "--batch_sizes", "1", "--input_size", "64", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", ["bench_loss", *flags])
    bench_loss.main()
    report = json.loads(capsys.readouterr().out)
    assert report.keys() == {"machine", "goals", "loss", "crowd", "training_step"}
    assert report["machine"].keys() >= {"cpu", "cores", "device", "torch", "date"}
    (loss,) = report["loss"]
    assert loss["assignments_identical"]
    assert loss["ours"].keys() == {"milliseconds", "aten_ops", "host_syncs"}
    assert loss["ratio"] > 0
    assert report["crowd"]["seconds"] > 0
    assert report["crowd"]["peak_growth_mb"] > 0
    assert report["training_step"]["loss_share"] > 0
