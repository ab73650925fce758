import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from yolox_core import PRESETS, YOLOX, Checkpoint, build_model, fuse_conv_bn

PARAMETERS = {
    "nano": 912_159,
    "tiny": 5_055_855,
    "s": 8_968_255,
    "m": 25_326_495,
    "l": 54_208_895,
    "x": 99_071_455,
}


def build_on_meta(preset: str) -> YOLOX:
    """Shapes only, so that the big presets cost nothing."""
    with torch.device("meta"):
        return build_model(preset)


def with_random_statistics(model: YOLOX) -> YOLOX:
    """BatchNorm that does something: fresh layers have mean 0, variance 1, weight 1, bias 0."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                nn.init.uniform_(tensor, -0.5, 0.5)
    return model.eval()


@pytest.mark.parametrize("preset", PRESETS)
def test_state_dict_has_the_official_keys_order_and_shapes(preset: str, golden: Path) -> None:
    expected = json.loads((golden / "state_dict_keys.json").read_text())[preset]
    state_dict = build_on_meta(preset).state_dict()
    found = {key: [list(v.shape), str(v.dtype)[6:]] for key, v in state_dict.items()}
    assert list(found.items()) == list(expected.items())


@pytest.mark.parametrize("preset", PRESETS)
def test_parameter_count_is_the_published_one(preset: str) -> None:
    assert sum(p.numel() for p in build_on_meta(preset).parameters()) == PARAMETERS[preset]


def test_raw_outputs_of_the_official_weights(
    official_nano: Checkpoint, forward_golden: Mapping[str, Any]
) -> None:
    with torch.inference_mode():
        raw = official_nano.model(torch.from_numpy(forward_golden["x_uint8"]).float())
    for output, stride in zip(raw, (8, 16, 32), strict=True):
        expected = torch.from_numpy(forward_golden[f"raw{stride}"])
        torch.testing.assert_close(output, expected, atol=1e-4, rtol=0)


def test_neck_features_of_the_official_weights(
    official_nano: Checkpoint, forward_golden: Mapping[str, Any]
) -> None:
    with torch.inference_mode():
        images = torch.from_numpy(forward_golden["x_uint8"]).float()
        features = official_nano.model.backbone(images)
    for feature, stride in zip(features, (8, 16, 32), strict=True):
        expected = torch.from_numpy(forward_golden[f"fpn{stride}"])
        torch.testing.assert_close(feature, expected, atol=1e-4, rtol=0)


def test_levels_have_strides_8_16_32_and_5_plus_num_classes_channels() -> None:
    raw = build_model("nano", num_classes=3).eval()(torch.zeros(2, 3, 64, 96))
    assert [tuple(output.shape) for output in raw] == [(2, 8, 8, 12), (2, 8, 4, 6), (2, 8, 2, 3)]


@pytest.mark.parametrize("size", [(100, 64), (64, 33), (0, 32)])
def test_an_input_size_that_is_no_multiple_of_32_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"{size[0]}, {size[1]}.*positive multiples of 32"):
        build_model("nano")(torch.zeros(1, 3, *size))


def test_an_unknown_preset_is_answered_with_the_choices() -> None:
    with pytest.raises(ValueError, match=r"'huge'.*nano, tiny, s, m, l, x"):
        build_model("huge")


def test_no_classes_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one class"):
        build_model("nano", num_classes=0)


@pytest.mark.parametrize(
    ("name", "layer"),
    [("silu", nn.SiLU), ("relu", nn.ReLU), ("lrelu", nn.LeakyReLU), ("mish", nn.Mish)],
)
def test_all_activations_of_a_model_are_the_one_asked_for(
    name: str, layer: type[nn.Module]
) -> None:
    modules = list(build_model("nano", activation=name).modules())
    activations = [m for m in modules if isinstance(m, nn.SiLU | nn.ReLU | nn.LeakyReLU | nn.Mish)]
    assert len(activations) == 104  # one per BatchNorm
    assert {type(m) for m in activations} == {layer}


def test_an_unknown_activation_is_answered_with_the_choices() -> None:
    with pytest.raises(ValueError, match=r"'gelu'.*silu, relu, lrelu, mish"):
        build_model("nano", activation="gelu")


def test_untrained_scores_start_at_one_percent() -> None:
    head = build_model("nano").head
    biases = torch.cat([c.get_parameter("bias") for c in (*head.cls_preds, *head.obj_preds)])
    assert biases.sigmoid().allclose(torch.tensor(0.01))


def test_batch_norm_has_the_official_eps_and_momentum() -> None:
    norms = [m for m in build_model("nano").modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.03)}


def test_fusion_keeps_the_outputs() -> None:
    model = with_random_statistics(build_model("nano", num_classes=3))
    images = torch.rand(1, 3, 64, 64) * 255
    with torch.inference_mode():
        for fused, plain in zip(fuse_conv_bn(model)(images), model(images), strict=True):
            torch.testing.assert_close(fused, plain, atol=1e-4, rtol=1e-4)


def test_fusion_removes_every_batch_norm_from_an_eval_mode_copy_only() -> None:
    model = build_model("nano").train()
    fused = fuse_conv_bn(model)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    assert not fused.training
    assert model.training
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == 104


def test_one_training_step_gives_every_parameter_a_finite_gradient() -> None:
    model = build_model("tiny", num_classes=2).train()
    sum(output.square().mean() for output in model(torch.rand(2, 3, 64, 64))).backward()
    norms = [float(p.grad.norm()) for p in model.parameters() if p.grad is not None]
    assert len(norms) == len(list(model.parameters()))
    assert all(math.isfinite(norm) for norm in norms)
