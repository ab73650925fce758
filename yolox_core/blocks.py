"""Building blocks of the backbone, the neck and the head.

Attribute names are those of the official state dict, so that published weights load unchanged.
Shapes: B = images, C = channels, H and W = cells.
"""

import torch
from torch import Tensor, nn


def activation_layer(name: str) -> nn.Module:
    """A fresh module of one of the `ACTIVATIONS`."""
    if name == "lrelu":
        return nn.LeakyReLU(0.1, inplace=True)
    layers: dict[str, type[nn.Module]] = {"silu": nn.SiLU, "relu": nn.ReLU, "mish": nn.Mish}
    return layers[name](inplace=True)


class BaseConv(nn.Module):
    """Convolution, batch normalisation, activation; padded so that stride 1 keeps H and W."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        *,
        groups: int = 1,
        activation: str,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding=(kernel_size - 1) // 2,
            groups=groups,
            bias=False,
        )
        # eps and momentum are the official ones: published statistics assume this eps.
        self.bn: nn.Module = nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.03)
        self.act = activation_layer(activation)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.bn(self.conv(x)))
        return out


class DWConv(nn.Module):
    """Depthwise convolution followed by a 1x1 convolution."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        *,
        activation: str,
    ) -> None:
        super().__init__()
        self.dconv = BaseConv(
            in_channels, in_channels, kernel_size, stride, groups=in_channels, activation=activation
        )
        self.pconv = BaseConv(in_channels, out_channels, 1, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pconv(self.dconv(x))
        return out


def spatial_conv(
    in_channels: int, out_channels: int, stride: int = 1, *, depthwise: bool, activation: str
) -> BaseConv | DWConv:
    """A 3x3 convolution, in the flavour the preset asks for."""
    layer = DWConv if depthwise else BaseConv
    return layer(in_channels, out_channels, 3, stride, activation=activation)


class Focus(nn.Module):
    """Moves each 2x2 square of pixels into channels, then convolves: (B, C, H, W) at half size."""

    def __init__(self, in_channels: int, out_channels: int, *, activation: str) -> None:
        super().__init__()
        self.conv = BaseConv(4 * in_channels, out_channels, 3, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        top_left, top_right = x[..., ::2, ::2], x[..., ::2, 1::2]
        bottom_left, bottom_right = x[..., 1::2, ::2], x[..., 1::2, 1::2]
        # Column by column: the order the published weights were trained with.
        patches = torch.cat((top_left, bottom_left, top_right, bottom_right), dim=1)
        out: Tensor = self.conv(patches)
        return out


class Bottleneck(nn.Module):
    """1x1 and 3x3 convolution, with a residual connection when `shortcut`."""

    def __init__(self, channels: int, *, shortcut: bool, depthwise: bool, activation: str) -> None:
        super().__init__()
        self.conv1 = BaseConv(channels, channels, 1, activation=activation)
        self.conv2 = spatial_conv(channels, channels, depthwise=depthwise, activation=activation)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(self.conv1(x))
        return out + x if self.shortcut else out


class CSPLayer(nn.Module):
    """Cross-stage partial layer: half of the channels pass through the bottlenecks."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_bottlenecks: int,
        *,
        shortcut: bool,
        depthwise: bool,
        activation: str,
    ) -> None:
        super().__init__()
        hidden = out_channels // 2
        self.conv1 = BaseConv(in_channels, hidden, 1, activation=activation)
        self.conv2 = BaseConv(in_channels, hidden, 1, activation=activation)
        self.conv3 = BaseConv(2 * hidden, out_channels, 1, activation=activation)
        self.m = nn.Sequential(
            *(
                Bottleneck(hidden, shortcut=shortcut, depthwise=depthwise, activation=activation)
                for _ in range(num_bottlenecks)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv3(torch.cat((self.m(self.conv1(x)), self.conv2(x)), dim=1))
        return out


class SPPBottleneck(nn.Module):
    """Spatial pyramid pooling: maxima over 5x5, 9x9 and 13x13 cells beside the cell itself."""

    def __init__(self, in_channels: int, out_channels: int, *, activation: str) -> None:
        super().__init__()
        hidden = in_channels // 2
        self.conv1 = BaseConv(in_channels, hidden, 1, activation=activation)
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)
        self.conv2 = BaseConv(4 * hidden, out_channels, 1, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        # A 5x5 maximum of 5x5 maxima is the 9x9 maximum: same numbers, a third of the reads.
        pooled_5 = self.pool(x)
        pooled_9 = self.pool(pooled_5)
        pooled_13 = self.pool(pooled_9)
        out: Tensor = self.conv2(torch.cat((x, pooled_5, pooled_9, pooled_13), dim=1))
        return out
