"""YOLOX: backbone, neck and head in one module.

Ge et al., "YOLOX: Exceeding YOLO Series in 2021", https://arxiv.org/abs/2107.08430.
"""

import copy

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from yolox_core.blocks import BaseConv
from yolox_core.config import ModelConfig, check_input_size, model_config
from yolox_core.head import YOLOXHead
from yolox_core.pafpn import YOLOPAFPN


class YOLOX(nn.Module):
    """The detector: images in, raw outputs out."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = YOLOPAFPN(config)
        self.head = YOLOXHead(config)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Raw outputs of each level, finest first.

        Args:
            images: (B, 3, H, W) float, prepared by `to_model_input`; H and W are multiples of 32.

        Returns:
            For each stride s in 8, 16, 32 a (B, 5 + C, H / s, W / s): 4 box numbers, objectness,
            C classes, all before sigmoid. `decode_outputs` turns them into boxes.

        Raises:
            ValueError: H or W is not a positive multiple of 32.
        """
        check_input_size(images.shape[-2], images.shape[-1])
        outputs: list[Tensor] = self.head(self.backbone(images))
        return outputs


def build_model(preset: str, num_classes: int = 80, activation: str = "silu") -> YOLOX:
    """An untrained YOLOX of one of the `PRESETS`.

    Raises:
        ValueError: an unknown preset or activation, or fewer than one class.
    """
    return YOLOX(model_config(preset, num_classes, activation))


def fuse_conv_bn(model: YOLOX) -> YOLOX:
    """A copy for inference, in eval mode: each batch normalisation folded into its convolution.

    Outputs are those of `model.eval()` up to rounding. The copy is not meant to be trained, and
    its state dict no longer has the official keys.
    """
    fused = copy.deepcopy(model).eval()
    for module in fused.modules():
        if isinstance(module, BaseConv) and isinstance(module.bn, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.bn)
            module.bn = nn.Identity()
    return fused
