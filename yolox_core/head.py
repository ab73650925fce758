"""YOLOXHead: decoupled classification and regression branches, one pair per level."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from yolox_core.blocks import BaseConv, spatial_conv
from yolox_core.config import STRIDES, ModelConfig

_PRIOR_PROBABILITY = 1e-2


class YOLOXHead(nn.Module):
    """Features to raw outputs; no decoding and no loss."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden = int(256 * config.width)

        def branch() -> nn.Sequential:
            return nn.Sequential(
                *(
                    spatial_conv(
                        hidden, hidden, depthwise=config.depthwise, activation=config.activation
                    )
                    for _ in range(2)
                )
            )

        def prediction(out_channels: int) -> nn.Conv2d:
            return nn.Conv2d(hidden, out_channels, kernel_size=1)

        self.cls_convs = nn.ModuleList(branch() for _ in STRIDES)
        self.reg_convs = nn.ModuleList(branch() for _ in STRIDES)
        self.cls_preds = nn.ModuleList(prediction(config.num_classes) for _ in STRIDES)
        self.reg_preds = nn.ModuleList(prediction(4) for _ in STRIDES)
        self.obj_preds = nn.ModuleList(prediction(1) for _ in STRIDES)
        self.stems = nn.ModuleList(
            BaseConv(int(channels * config.width), hidden, 1, activation=config.activation)
            for channels in (256, 512, 1024)
        )
        self._start_from_prior()

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Raw outputs of each level, before any sigmoid.

        Args:
            features: one (B, channels, h, w) per level, as the neck gives them.

        Returns:
            One (B, 5 + C, h, w) per level: 4 box numbers, objectness, C classes.
        """
        outputs = []
        for level, feature in enumerate(features):
            x = self.stems[level](feature)
            regression = self.reg_convs[level](x)
            box = self.reg_preds[level](regression)
            objectness = self.obj_preds[level](regression)
            classes = self.cls_preds[level](self.cls_convs[level](x))
            outputs.append(torch.cat((box, objectness, classes), dim=1))
        return outputs

    def _start_from_prior(self) -> None:
        """Untrained scores start at 0.01, or the many background points swamp the first steps.

        RetinaNet, https://arxiv.org/abs/1708.02002, section 3.3.
        """
        bias = -math.log((1 - _PRIOR_PROBABILITY) / _PRIOR_PROBABILITY)
        for conv in (*self.cls_preds, *self.obj_preds):
            nn.init.constant_(conv.get_parameter("bias"), bias)
