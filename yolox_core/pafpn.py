"""YOLOPAFPN: the path-aggregation neck, with the backbone inside as in the official layout."""

import torch
from torch import Tensor, nn

from yolox_core.blocks import BaseConv, CSPLayer, spatial_conv
from yolox_core.config import ModelConfig
from yolox_core.darknet import CSPDarknet


class YOLOPAFPN(nn.Module):
    """Mixes the backbone's levels, first from coarse to fine, then from fine to coarse."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        activation, depthwise = config.activation, config.depthwise
        c8, c16, c32 = (int(channels * config.width) for channels in (256, 512, 1024))

        def csp(in_channels: int, out_channels: int) -> CSPLayer:
            return CSPLayer(
                in_channels,
                out_channels,
                round(3 * config.depth),
                shortcut=False,
                depthwise=depthwise,
                activation=activation,
            )

        def down(channels: int) -> nn.Module:
            return spatial_conv(
                channels, channels, stride=2, depthwise=depthwise, activation=activation
            )

        self.backbone = CSPDarknet(config)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.lateral_conv0 = BaseConv(c32, c16, 1, activation=activation)
        self.C3_p4 = csp(2 * c16, c16)
        self.reduce_conv1 = BaseConv(c16, c8, 1, activation=activation)
        self.C3_p3 = csp(2 * c8, c8)
        self.bu_conv2 = down(c8)
        self.C3_n3 = csp(2 * c8, c16)
        self.bu_conv1 = down(c16)
        self.C3_n4 = csp(2 * c16, c32)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features at strides 8, 16 and 32, with 256, 512 and 1024 x width channels."""
        stride_8, stride_16, stride_32 = self.backbone(images)

        lateral_32: Tensor = self.lateral_conv0(stride_32)
        mixed_16: Tensor = self.C3_p4(torch.cat((self.upsample(lateral_32), stride_16), dim=1))
        lateral_16: Tensor = self.reduce_conv1(mixed_16)
        out_8: Tensor = self.C3_p3(torch.cat((self.upsample(lateral_16), stride_8), dim=1))

        out_16: Tensor = self.C3_n3(torch.cat((self.bu_conv2(out_8), lateral_16), dim=1))
        out_32: Tensor = self.C3_n4(torch.cat((self.bu_conv1(out_16), lateral_32), dim=1))
        return out_8, out_16, out_32
