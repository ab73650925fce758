import copy
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
import torch
from torch import Tensor, nn

from yolox_core import (
    YOLOX,
    Checkpoint,
    build_model,
    decode_outputs,
    estimate_statistics,
    fuse_conv_bn,
    is_folded,
    letterbox,
    to_model_input,
)
from yolox_core.blocks import BaseConv


@torch.no_grad()
def folded(model: YOLOX) -> YOLOX:
    """The same detector with mean 0 and variance 1 everywhere, as exports leave it."""
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if isinstance(module, BaseConv) and isinstance(module.bn, nn.BatchNorm2d):
            norm = module.bn
            slope = norm.weight / (norm.running_var + norm.eps).sqrt()
            module.conv.weight *= slope[:, None, None, None]
            norm.bias -= slope * norm.running_mean
            norm.weight.fill_((1 + norm.eps) ** 0.5)
            norm.running_mean.zero_()
            norm.running_var.fill_(1)
    return model


@torch.no_grad()
def trained_looking() -> YOLOX:
    """A nano whose BatchNorms have seen data: weights, biases and statistics of their own."""
    model = build_model("nano", num_classes=3).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(std=0.3)
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2)
    return model


@torch.no_grad()
def outputs_of(model: YOLOX, images: Tensor, *, training: bool = False) -> Tensor:
    """(B, A, 5 + C) boxes and probabilities; the model is left as it was."""
    return decode_outputs(copy.deepcopy(model).train(training)(images))


def error_in_training_mode(model: YOLOX, images: Tensor) -> float:
    """How far the probabilities move when BatchNorm goes by the batch, at the worst point."""
    moved = outputs_of(model, images, training=True) - outputs_of(model, images)
    return moved[..., 4:].abs().max().item()


def assert_same_detector(a: YOLOX, b: YOLOX, images: Tensor) -> None:
    """Scores within 1e-4, boxes within 0.01 px."""
    of_a, of_b = outputs_of(a, images), outputs_of(b, images)
    torch.testing.assert_close(of_a[..., 4:], of_b[..., 4:], atol=1e-4, rtol=0)
    torch.testing.assert_close(of_a[..., :4], of_b[..., :4], atol=0.01, rtol=1e-5)


def test_a_folded_model_is_told_from_a_trained_and_an_untrained_one() -> None:
    model = trained_looking()
    assert not is_folded(model)
    assert is_folded(folded(model))
    assert not is_folded(build_model("nano", num_classes=3))


def test_variances_of_1_minus_eps_are_those_of_a_folded_model_too() -> None:
    model = folded(trained_looking())
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.fill_(1 - module.eps)
    assert is_folded(model)


def test_a_model_without_batch_norm_is_not_called_folded() -> None:
    assert not is_folded(fuse_conv_bn(trained_looking()))


def test_estimated_statistics_make_a_folded_model_trainable_and_change_no_output() -> None:
    before = folded(trained_looking())
    images = torch.rand(8, 3, 64, 96) * 255
    after = copy.deepcopy(before)
    estimate_statistics(after, [images])
    assert not is_folded(after)
    assert_same_detector(after, before, images)
    assert_same_detector(after, before, torch.rand(2, 3, 64, 64) * 255)
    # The statistics are those of this very batch.
    assert error_in_training_mode(before, images) > 0.02
    assert error_in_training_mode(after, images) < 1e-3


def test_batches_are_weighed_by_their_images() -> None:
    images = torch.rand(8, 3, 64, 64) * 255
    together, apart = (copy.deepcopy(model) for model in [folded(trained_looking())] * 2)
    estimate_statistics(together, [images])
    estimate_statistics(apart, iter([images[:3], images[3:4], images[4:]]))
    for expected, found in zip(together.parameters(), apart.parameters(), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_an_unfolded_model_keeps_its_function_too() -> None:
    before = trained_looking()
    after, images = copy.deepcopy(before), torch.rand(2, 3, 64, 64) * 255
    estimate_statistics(after, [images])
    assert_same_detector(after, before, images)


@pytest.mark.parametrize("training", [False, True])
def test_the_mode_is_kept_and_no_hook_stays(training: bool) -> None:
    model = folded(trained_looking()).train(training)
    estimate_statistics(model, [torch.rand(1, 3, 64, 64)])
    assert model.training == training
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_without_images_nothing_is_estimated() -> None:
    model = folded(trained_looking())
    with pytest.raises(ValueError, match="give at least one"):
        estimate_statistics(model, [])
    assert is_folded(model)


def test_the_official_nano_survives_being_folded_and_estimated_anew(
    official_nano: Checkpoint, shared: Callable[[str], Path]
) -> None:
    photos = sorted(shared("data/coco_val79").rglob("*.jpg"))[:8]
    canvases = [letterbox(cv2.imread(str(photo)), (224, 224), "official")[0] for photo in photos]
    images = to_model_input(
        torch.stack([torch.as_tensor(canvas) for canvas in canvases]), "official"
    )
    assert not is_folded(official_nano.model)
    before = folded(official_nano.model)
    after = copy.deepcopy(before)
    estimate_statistics(after, [images])
    assert_same_detector(after, official_nano.model, images)
    assert error_in_training_mode(before, images) > 0.5
    assert error_in_training_mode(after, images) < 0.01
