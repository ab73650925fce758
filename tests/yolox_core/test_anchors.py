import math
from collections.abc import Mapping
from typing import Any

import torch

from yolox_core import anchor_points, decode_outputs


def empty_raw(height: int, width: int, num_classes: int = 2) -> list[torch.Tensor]:
    return [torch.zeros(1, 5 + num_classes, height // s, width // s) for s in (8, 16, 32)]


def test_anchor_points_run_row_by_row_from_the_finest_level() -> None:
    points = anchor_points(empty_raw(32, 64))
    assert len(points.cells) == 4 * 8 + 2 * 4 + 1 * 2
    assert points.centres[:2].tolist() == [[4, 4], [12, 4]]  # the row goes on
    assert points.centres[8].tolist() == [4, 12]  # the next row
    assert points.centres[-1].tolist() == [48, 16]  # second cell of stride 32
    assert points.strides.unique().tolist() == [8, 16, 32]


def test_a_raw_zero_decodes_to_the_corner_of_its_cell_and_one_stride() -> None:
    decoded = decode_outputs(empty_raw(32, 64))
    assert decoded[0, 1].tolist() == [8, 0, 8, 8, 0.5, 0.5, 0.5]


def test_decoding_scales_by_the_stride() -> None:
    raw = empty_raw(32, 32)
    raw[2][0, :4, 0, 0] = torch.tensor([0.25, 0.5, math.log(2), math.log(3)])
    torch.testing.assert_close(decode_outputs(raw)[0, -1, :4], torch.tensor([8.0, 16, 64, 96]))


def test_decoded_outputs_of_the_official_weights(forward_golden: Mapping[str, Any]) -> None:
    raw = [torch.from_numpy(forward_golden[f"raw{stride}"]) for stride in (8, 16, 32)]
    expected = torch.from_numpy(forward_golden["decoded"])
    torch.testing.assert_close(decode_outputs(raw), expected, atol=1e-4, rtol=0)


def test_half_precision_outputs_decode_in_float32() -> None:
    raw = [output.half() for output in empty_raw(32, 32)]
    raw[2][0, 2] = 10
    width = decode_outputs(raw)[0, -1, 2]
    torch.testing.assert_close(width, torch.tensor(math.exp(10) * 32))  # beyond float16
