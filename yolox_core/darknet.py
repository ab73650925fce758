"""CSPDarknet, the backbone."""

from torch import Tensor, nn

from yolox_core.blocks import CSPLayer, Focus, SPPBottleneck, spatial_conv
from yolox_core.config import ModelConfig


class CSPDarknet(nn.Module):
    """Image to features: five steps, each halving height and width."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        base = int(64 * config.width)
        few = max(round(3 * config.depth), 1)
        self.stem = Focus(3, base, activation=config.activation)
        self.dark2 = _stage(config, base, 2 * base, few)
        self.dark3 = _stage(config, 2 * base, 4 * base, 3 * few)
        self.dark4 = _stage(config, 4 * base, 8 * base, 3 * few)
        self.dark5 = _stage(config, 8 * base, 16 * base, few, last=True)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features at strides 8, 16 and 32, with 256, 512 and 1024 x width channels."""
        stride_8: Tensor = self.dark3(self.dark2(self.stem(images)))
        stride_16: Tensor = self.dark4(stride_8)
        stride_32: Tensor = self.dark5(stride_16)
        return stride_8, stride_16, stride_32


def _stage(
    config: ModelConfig,
    in_channels: int,
    out_channels: int,
    num_bottlenecks: int,
    *,
    last: bool = False,
) -> nn.Sequential:
    activation, depthwise = config.activation, config.depthwise
    down = spatial_conv(
        in_channels, out_channels, stride=2, depthwise=depthwise, activation=activation
    )
    csp = CSPLayer(
        out_channels,
        out_channels,
        num_bottlenecks,
        shortcut=not last,
        depthwise=depthwise,
        activation=activation,
    )
    if not last:
        return nn.Sequential(down, csp)
    return nn.Sequential(
        down, SPPBottleneck(out_channels, out_channels, activation=activation), csp
    )
