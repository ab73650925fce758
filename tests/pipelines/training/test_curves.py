import struct
from dataclasses import asdict, replace

import cv2
import numpy as np
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event

from pipelines.training.curves import draw_curves, tensorboard_events
from pipelines.training.metrics import EpochRow
from tests.epoch_rows import ROW


def run_of(epochs: int, validated: tuple[int, ...] = ()) -> list[EpochRow]:
    rows = [replace(ROW, epoch=epoch, loss=6.5 / epoch) for epoch in range(1, epochs + 1)]
    return [replace(r, ap=0.25, ap50=0.5) if r.epoch in validated else r for r in rows]


def decoded(png: bytes) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return pixels


def records(file: bytes) -> list[bytes]:
    """The records of a TFRecord file, their checksums looked at."""
    found, at = [], 0
    while at < len(file):
        size, size_sum = struct.unpack_from("<QI", file, at)
        data = file[at + 12 : at + 12 + size]
        (data_sum,) = struct.unpack_from("<I", file, at + 12 + size)
        assert size_sum == masked_checksum(file[at : at + 8])
        assert data_sum == masked_checksum(data)
        found.append(data)
        at += 16 + size
    return found


def masked_checksum(data: bytes) -> int:
    value = crc32c(data)
    return (((value >> 15) | (value << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def scalars(file: bytes) -> list[tuple[int, str, float]]:
    """(step, tag, value) of every event."""
    events = [Event.FromString(record) for record in records(file)]
    assert events[0].file_version == "brain.Event:2"
    return [(e.step, v.tag, v.simple_value) for e in events[1:] for v in e.summary.value]


def test_a_picture_is_drawn_of_one_epoch_and_of_300() -> None:
    for rows in (run_of(1), run_of(3, validated=(3,)), run_of(300, validated=(10, 300))):
        assert decoded(draw_curves(rows)).shape == (1000, 1000, 3)


def test_other_rows_give_another_picture_and_the_same_rows_the_same() -> None:
    rows = run_of(3, validated=(3,))
    assert draw_curves(rows) == draw_curves(rows)
    for change in ({"loss_iou": 3.0}, {"loss_l1": 1.0}, {"ap50": 0.6}, {"learning_rate": 0.02}):
        changed = [*rows[:2], replace(rows[2], **change)]
        assert (decoded(draw_curves(changed)) != decoded(draw_curves(rows))).any(), change


def test_every_column_of_every_epoch_is_in_the_event_file_once() -> None:
    found = scalars(tensorboard_events(run_of(3, validated=(3,))))
    assert len({(step, tag) for step, tag, _ in found}) == len(found)
    columns = len(asdict(ROW)) - 1  # the epoch is the step
    assert [sum(step == epoch for step, _, _ in found) for epoch in (1, 2, 3)] == [
        columns - 2,  # not validated
        columns - 2,
        columns,
    ]


def test_tags_are_grouped_and_values_are_those_of_the_rows() -> None:
    found = {
        (step, tag): value for step, tag, value in scalars(tensorboard_events(run_of(2, (2,))))
    }
    assert found[1, "loss/total"] == 6.5
    assert found[2, "loss/total"] == 3.25
    assert found[1, "loss/iou"] == 2.5
    assert found[2, "validation/AP"] == 0.25
    assert found[2, "validation/AP50"] == 0.5
    assert (1, "validation/AP") not in found
    assert found[1, "images_per_second"] == 100


def test_the_event_file_of_a_longer_run_begins_like_that_of_a_shorter_one() -> None:
    assert tensorboard_events(run_of(3)).startswith(tensorboard_events(run_of(2)))
