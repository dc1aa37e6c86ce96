"""Networks for the ImageNet subset's ten classes, from torchvision and timm, and their published weights.

The paper names VGG-16, Wide-ResNet, Xception and MobileNet, and no more. They take pictures of any size. None has
dropout, as Keras' copies of VGG-16 and Xception have none: its draws would be no part of a killed training's state."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reprolib.data.imagenet_subset import IMAGENETTE, MEAN, STD
from reprolib.networks.layers import Normalize, scaled

ROWS = [index for _, index in IMAGENETTE.values()]  # of the ten classes in a head of 1000
HALF = (0.5, 0.5, 0.5)


def squeezenet() -> nn.Module:
    """SqueezeNet 1.1 (Iandola et al. 2016); its head is a convolution."""
    from torchvision.models import squeezenet1_1

    return _behind(squeezenet1_1(num_classes=10, dropout=0.0))


def vgg16(width: float = 1.0) -> nn.Module:
    """VGG-16 (Simonyan and Zisserman 2015) as published, without batch normalisation; 134 301 514 parameters."""
    from torchvision.models.vgg import make_layers

    stages = [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]
    features = make_layers([part for c, depth in stages for part in [scaled(c, width)] * depth + ["M"]])
    maps, hidden = scaled(512, width), scaled(4096, width)
    layers = nn.Linear(49 * maps, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, 10)
    for module in (*features, *layers):
        if isinstance(module, (nn.Conv2d, nn.Linear)):  # torch's default is too small for sixteen layers
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.constant_(module.get_parameter("bias"), 0)
    first, second, last = layers
    # named as torchvision's, for its weights; where that has dropout, images go on as they are
    classifier = nn.Sequential(first, nn.ReLU(), nn.Identity(), second, nn.ReLU(), nn.Identity(), last)
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(7), nn.Flatten())
    return _behind(nn.Sequential(OrderedDict(features=features, pool=pool, classifier=classifier)))


def resnet50() -> nn.Module:
    """ResNet-50 (He et al. 2016)."""
    from torchvision.models import resnet50

    return _behind(resnet50(num_classes=10))


def wide_resnet_50_2(width: float = 1.0) -> nn.Module:
    """Wide-ResNet-50-2 (Zagoruyko and Komodakis 2016); `width` multiplies what is wide in it, the channels inside of
    the bottlenecks."""
    from torchvision.models.resnet import Bottleneck, ResNet

    return _behind(ResNet(Bottleneck, [3, 4, 6, 3], num_classes=10, width_per_group=scaled(128, width)))


def mobilenet_v1() -> nn.Module:
    """MobileNet (Howard et al. 2017)."""
    return _behind(_timm("mobilenetv1_100"), HALF, HALF)


def mobilenet_v2() -> nn.Module:
    """MobileNet V2 (Sandler et al. 2018)."""
    from torchvision.models import mobilenet_v2

    return _behind(mobilenet_v2(num_classes=10, dropout=0.0))


def xception() -> nn.Module:
    """Xception (Chollet 2017), Keras' weights in Cadene's port."""
    return _behind(_timm("legacy_xception"), HALF, HALF)


def efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0 (Liu 2020), of MobileNet V2's family: inverted bottlenecks, ReLU6."""
    network = _timm("tf_efficientnet_lite0")
    for module in network.modules():  # a change of class keeps the parameters
        if type(module).__name__ == "Conv2dSame":
            module.__class__ = _SamePaddedConv2d
    return _behind(network, HALF, HALF)


def _timm(name: str) -> nn.Module:
    from timm.models import create_model

    return create_model(name, num_classes=10)


def _behind(network: nn.Module, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD) -> nn.Sequential:
    """Images [B, 3, H, W] in [0, 1] -> logits [B, 10]."""
    return nn.Sequential(Normalize(mean, std), network)


def with_ten_classes(weights: dict[str, Tensor], network: nn.Sequential, head: str = "slice") -> dict[str, Tensor]:
    """Published ImageNet weights as a state dict of one of these networks.

    Of a head of 1000 classes the ten rows are taken, so that it chooses among these ten; with `head` "fresh" it stays
    the given network's. Tensors of other names fill the network in their order. Raises ValueError where they do not
    fit."""
    own = network[1].state_dict()
    if len(weights) != len(own):
        raise ValueError(f"it has {len(weights)} tensors; {len(own)} are needed")
    named = weights if weights.keys() == own.keys() else dict(zip(own, weights.values(), strict=True))
    filled = {f"0.{name}": tensor for name, tensor in network[0].state_dict().items()}
    for name, tensor in own.items():
        given = named[name]
        if given.shape == (1000, *tensor.shape[1:]) != tensor.shape:
            given = given[ROWS] if head == "slice" else tensor
        if given.shape != tensor.shape:
            raise ValueError(f"{name} is {list(given.shape)}; {list(tensor.shape)} is needed")
        filled[f"1.{name}"] = given
    return filled


class _SamePaddedConv2d(nn.Conv2d):
    """As in TensorFlow: with a stride of 2, an image of even size has its border at the right and below."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(same_padded(x, self.kernel_size[0], self.stride[0]))


def same_padded(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Zeros around [B, C, H, W], so that a convolution gives maps of H / stride and W / stride, rounded up."""
    rows, columns = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[2:])
    return F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


torch.fx.wrap("same_padded")  # one step in what `cpu.folding` traces
