"""VGG-16 (Simonyan and Zisserman 2015) for CIFAR-10. The paper names it and no more."""

from torch import nn
from torchvision.models.vgg import make_layers

from reprolib.networks.layers import cifar_network, scaled


def vgg16(width: float = 1.0) -> nn.Module:
    """VGG-16 for 32x32 images: 13 convolutions with batch normalisation, one linear layer; 14 728 266 parameters."""
    stages = [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]
    plan = [part for channels, depth in stages for part in [scaled(channels, width)] * depth + ["M"]]
    features = make_layers(plan, batch_norm=True)
    network = cifar_network(scaled(512, width), side=32, features=features)
    for module in features:
        if isinstance(module, nn.Conv2d) and module.bias is not None:  # as torchvision does: the default is too small
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.bias)
    return network
