import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.datasets.shapes import generate_archive
from pipelines.evaluation.coco import Evaluation, evaluate
from pipelines.photos.errors import ErrorKind, ImageError
from pipelines.storage.folder import Folder
from pipelines.tables.schema import DETECTIONS
from pipelines.training.log import TrainingLog
from pipelines.training.metrics import EpochResult, WorkerReport


def report_of(
    epoch: int,
    *,
    wait_seconds: float = 0.0,
    loss: float = 2.0,
    broken: dict[str, ImageError] | None = None,
    evaluation: Evaluation | None = None,
    notes: Sequence[str] = (),
) -> WorkerReport:
    """An epoch of ten seconds and 50 images."""
    result = EpochResult(
        epoch=epoch,
        loss=loss,
        loss_iou=1.0,
        loss_objectness=0.5,
        loss_class=0.5,
        loss_l1=0.0,
        num_foreground=3.0,
        learning_rate=0.01,
        skipped_steps=0,
        images=50,
        seconds=10.0,
        wait_seconds=wait_seconds,
        gpu_memory_bytes=0,
    )
    stages = {"fetching": 2.0, "decoding": 7.5}
    return WorkerReport.of(result, stages, broken or {}, evaluation, 0.0, notes)


@pytest.fixture
def log(tmp_path: Path) -> TrainingLog:
    return TrainingLog(Folder(str(tmp_path)), epochs=3)


def test_a_tenth_of_the_time_spent_waiting_is_told_with_the_stage_that_is_short(
    log: TrainingLog,
) -> None:
    [line] = log.add([report_of(1, wait_seconds=0.9)])
    assert "9% waiting" in line
    [_, warning] = log.add([report_of(2), report_of(2, wait_seconds=1.0)])
    assert warning == ("10% of epoch 2 was spent waiting for data: decoding is short (7.5 s of it)")


def test_an_epoch_is_the_sum_of_its_workers(log: TrainingLog) -> None:
    [line] = log.add([report_of(1, loss=1.0), report_of(1, loss=3.0)])
    assert line.startswith("epoch 1/3  loss 2.000 (iou 1.000, ")
    assert "10.0 images/s" in line
    assert "0:00:20 left" in line


def test_a_kind_of_broken_image_is_told_of_once_by_an_example(log: TrainingLog) -> None:
    broken = {"a.jpg": ImageError(ErrorKind.CORRUPT, "JPEG that does not decode")}
    first = log.add([report_of(1, broken=broken)])
    assert first[0] == "skipped, corrupt: a.jpg: JPEG that does not decode"
    assert "1 images skipped" in first[1]
    assert len(log.add([report_of(2, broken=broken)])) == 1


def test_what_two_workers_of_a_machine_say_alike_is_told_once(log: TrainingLog) -> None:
    reports = [report_of(1, notes=["the disk is full"]), report_of(1, notes=["the disk is full"])]
    told, line = log.add(reports)
    assert told == "the disk is full"
    assert line.startswith("epoch 1/3")


def test_an_epoch_done_again_replaces_its_row(log: TrainingLog, tmp_path: Path) -> None:
    log.add([report_of(1)])
    log.add([report_of(2, loss=5.0)])
    resumed = TrainingLog(Folder(str(tmp_path)), epochs=3)
    assert resumed.epochs_done == 2
    assert not resumed.is_complete
    resumed.add([report_of(2, loss=4.0)])
    with (tmp_path / "metrics.csv").open() as file:
        assert [row["loss"] for row in csv.DictReader(file)] == ["2.0", "4.0"]


def test_validation_images_that_could_not_be_used_are_told_of_with_the_reason(
    log: TrainingLog, tmp_path: Path
) -> None:
    truth = generate_archive(tmp_path / "shapes", 4, 0, "photos")
    evaluation = evaluate(DETECTIONS.empty_table(), truth)
    assert len(log.add([report_of(1, evaluation=evaluation)])) == 1
    some = replace(evaluation, failed_by_kind={"gone": 2, "corrupt": 1})
    assert log.add([report_of(2, evaluation=some)])[1:] == [
        "warning: 3 of 4 validation images could not be used (gone 2, corrupt 1): their targets "
        "count as missed"
    ]
    none = replace(evaluation, failed_by_kind={"not_finite": 4})
    [_, told] = log.add([report_of(3, evaluation=none)])
    assert told.endswith("(not_finite 4): this AP says nothing about the weights")


def test_the_best_epoch_is_the_first_with_the_highest_ap(log: TrainingLog, tmp_path: Path) -> None:
    truth = generate_archive(tmp_path / "shapes", 4, 0, "photos")
    nothing_found = evaluate(DETECTIONS.empty_table(), truth)
    assert nothing_found.ap == 0
    for epoch in (1, 2):
        report = report_of(epoch, evaluation=nothing_found)
        assert log.is_best(report) == (epoch == 1)
        log.add([report])
    assert log.best.epoch == 1
    assert set(log.last_ap_per_class.values()) <= {0.0, None}
