"""Residual networks (He et al. 2016) for CIFAR-10, from torchvision's blocks. The paper says "ResNet" and no more."""

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from reprolib.networks.layers import cifar_network, scaled


def resnet50(width: float = 1.0) -> nn.Module:
    """ResNet-50 with a stem for 32x32 images (3x3, stride 1, no pooling) and bottlenecks; 23 520 842 parameters."""
    return _resnet(Bottleneck, [scaled(64, width) * 2**number for number in range(4)], (3, 4, 6, 3))


def resnet20(width: float = 1.0) -> nn.Module:
    """ResNet-20 of He et al. (2016), section 4.2, with shortcuts that have no weights; 269 722 parameters.
    Its accuracy is nearest to what the paper prints for its "ResNet" before fine-tuning."""
    return _resnet(BasicBlock, [scaled(16 * 2**number, width) for number in range(3)], (3, 3, 3))


def _resnet(block: type[BasicBlock | Bottleneck], widths: list[int], depths: tuple[int, ...]) -> nn.Module:
    stem = nn.Conv2d(3, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
    stages, inputs = [], widths[0]
    for number, (inner, depth) in enumerate(zip(widths, depths, strict=True)):
        stride, outputs = min(number + 1, 2), inner * block.expansion  # every stage but the first halves the map
        first = _shortcut(block, inputs, outputs, stride) if stride > 1 or inputs != outputs else None
        rest = [block(outputs, inner) for _ in range(depth - 1)]
        stages.append(nn.Sequential(block(inputs, inner, stride, first), *rest))
        inputs = outputs
    return cifar_network(inputs, stem=nn.Sequential(*stem), stages=nn.Sequential(*stages))


def _shortcut(block: type[nn.Module], inputs: int, outputs: int, stride: int) -> nn.Module:
    if block is Bottleneck:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
    before = (outputs - inputs) // 2  # every `stride`-th pixel, and zeros for the new channels
    return nn.Sequential(nn.AvgPool2d(1, stride), nn.ZeroPad3d((0, 0, 0, 0, before, outputs - inputs - before)))
