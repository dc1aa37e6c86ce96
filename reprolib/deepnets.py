"""The paper's larger networks for CIFAR-10, from torchvision's blocks. Images [B, 3, 32, 32] in [0, 1] -> logits [B, 10].

The paper names them and no more; each docstring says which reading is taken, with the number of parameters at width 1.
`width` multiplies the numbers of channels, for runs without a GPU.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.vgg import make_layers

from reprolib.layers import Normalize

CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class VGG16(nn.Module):
    """VGG-16 for 32x32 images: 13 convolutions with batch normalisation, one linear layer; 14 728 266 parameters."""

    def __init__(self, width: float = 1.0):
        super().__init__()
        stages = [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]
        plan = [part for channels, depth in stages for part in [_scaled(channels, width)] * depth + ["M"]]
        self.normalize = Normalize(CIFAR_MEAN, CIFAR_STD)
        self.features = make_layers(plan, batch_norm=True)
        self.fc = nn.Linear(_scaled(512, width), 10)
        for module in self.features:
            if isinstance(module, nn.Conv2d):  # as torchvision's VGG does: the default is too small for 13 layers
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.features(self.normalize(images)).flatten(1))


class ResNet50(nn.Module):
    """ResNet-50 with a stem for 32x32 images (3x3, stride 1, no pooling) and bottlenecks; 23 520 842 parameters."""

    def __init__(self, width: float = 1.0):
        super().__init__()
        channels = _scaled(64, width)
        self.normalize = Normalize(CIFAR_MEAN, CIFAR_STD)
        self.stem = _stem(channels)
        stages, inputs = [], channels
        for number, depth in enumerate((3, 4, 6, 3)):
            inner = channels * 2**number
            stages.append(
                _stage(Bottleneck, inputs, inner, depth, stride=1 if number == 0 else 2, shortcut=_projection)
            )
            inputs = inner * Bottleneck.expansion
        self.stages = nn.Sequential(*stages)
        self.fc = nn.Linear(inputs, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.stages(self.stem(self.normalize(images))).mean((2, 3)))


class ResNet20(nn.Module):
    """ResNet-20 of He et al. (2016), section 4.2, with shortcuts that have no weights; 269 722 parameters.

    Its accuracy is nearest to what the paper prints for its "ResNet" before fine-tuning.
    """

    def __init__(self, width: float = 1.0):
        super().__init__()
        widths = [_scaled(16 * 2**number, width) for number in range(3)]
        self.normalize = Normalize(CIFAR_MEAN, CIFAR_STD)
        self.stem = _stem(widths[0])
        self.stages = nn.Sequential(
            _stage(BasicBlock, widths[0], widths[0], 3, stride=1, shortcut=_padding),
            _stage(BasicBlock, widths[0], widths[1], 3, stride=2, shortcut=_padding),
            _stage(BasicBlock, widths[1], widths[2], 3, stride=2, shortcut=_padding),
        )
        self.fc = nn.Linear(widths[2], 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.stages(self.stem(self.normalize(images))).mean((2, 3)))


class WideResNet(nn.Module):
    """Wide-ResNet-depth-factor of Zagoruyko and Komodakis (2016): batch normalisation and ReLU before each convolution.

    WRN-28-10 has 36 479 194 parameters, WRN-16-4 2 748 890. Raises ValueError unless depth is 6 n + 4.
    """

    def __init__(self, depth: int = 28, factor: int = 10, width: float = 1.0):
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"depth is {depth}; expected 6 n + 4: 10, 16, 22, 28, 34, ...")
        self.normalize = Normalize(CIFAR_MEAN, CIFAR_STD)
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        blocks, inputs = [], 16
        for number in range(3):
            outputs = _scaled(16 * factor * 2**number, width)
            for index in range((depth - 4) // 6):
                stride = 2 if number > 0 and index == 0 else 1
                blocks.append(_WideBlock(inputs, outputs, stride))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks, nn.BatchNorm2d(inputs), nn.ReLU())
        self.fc = nn.Linear(inputs, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(self.normalize(images))).mean((2, 3)))


class _WideBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        before = F.relu(self.bn1(x))
        kept = x if self.shortcut is None else self.shortcut(before)
        return kept + self.conv2(F.relu(self.bn2(self.conv1(before))))


class _Padding(nn.Module):
    """A shortcut without weights: every second pixel, and zeros for the new channels."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.before = (outputs - inputs) // 2
        self.after = outputs - inputs - self.before

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


def _padding(inputs: int, outputs: int, stride: int) -> nn.Module:
    return _Padding(inputs, outputs)


def _projection(inputs: int, outputs: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def _stage(block: type, inputs: int, inner: int, depth: int, *, stride: int, shortcut) -> nn.Sequential:
    outputs = inner * block.expansion
    first = shortcut(inputs, outputs, stride) if stride > 1 or inputs != outputs else None
    rest = [block(outputs, inner) for _ in range(depth - 1)]
    return nn.Sequential(block(inputs, inner, stride, first), *rest)


def _stem(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())


def _scaled(channels: int, width: float) -> int:
    return max(round(channels * width), 1)
