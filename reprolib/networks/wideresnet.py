"""Wide residual networks (Zagoruyko and Komodakis 2016) for CIFAR-10. The paper does not state the size of its own."""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from reprolib.networks.layers import cifar_network, scaled


def wide_resnet(depth: int, factor: int, width: float = 1.0) -> nn.Module:
    """Wide-ResNet-depth-factor; depth is 6 n + 4: 10, 16, 22, 28, 34, ..."""
    stem, blocks, inputs = nn.Conv2d(3, 16, 3, padding=1, bias=False), [], 16
    for number in range(3):
        outputs = scaled(16 * factor * 2**number, width)
        for index in range((depth - 4) // 6):
            blocks.append(_WideBlock(inputs, outputs, stride=2 if number > 0 and index == 0 else 1))
            inputs = outputs
    return cifar_network(inputs, stem=stem, blocks=nn.Sequential(*blocks, nn.BatchNorm2d(inputs), nn.ReLU()))


wide_resnet_16_4 = partial(wide_resnet, 16, 4)  # 2 748 890 parameters
wide_resnet_28_10 = partial(wide_resnet, 28, 10)  # 36 479 194 parameters


class _WideBlock(nn.Module):
    """Batch normalisation and ReLU before each convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = None if inputs == outputs and stride == 1 else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        before = F.relu(self.bn1(x))
        kept = x if self.shortcut is None else self.shortcut(before)
        return kept + self.conv2(F.relu(self.bn2(self.conv1(before))))
