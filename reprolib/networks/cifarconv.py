"""CIFARconv, the paper's small network for CIFAR-10, in one of two readings."""

import warnings
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from reprolib.data import cifar10
from reprolib.networks.layers import Normalize

# Table 1 prints even kernels; torch says of each that it pads a copy of the input, which is what is wanted.
warnings.filterwarnings("ignore", message="Using padding='same' with even kernel lengths")


class CIFARConv(nn.Module):
    """Three convolutions and two fully connected layers. Images [B, 3, 32, 32] in [0, 1] -> logits [B, 10].

    Strides, padding and the activation after FC(64) are not printed: convolutions keep the size, 3x3 pools have stride
    2 (32, 15, 7, 3 pixels), and there is no activation between the two fully connected layers, as in EMPIR's code."""

    def __init__(self, kernel: int, channels: tuple[int, int, int], bias: bool):
        super().__init__()
        first, second, third = channels
        self.normalize = Normalize(cifar10.MEAN, cifar10.STD, side=32)
        self.conv1 = nn.Conv2d(3, first, 5, padding="same", bias=bias)
        self.conv2 = nn.Conv2d(first, second, kernel, padding="same", bias=bias)
        self.conv3 = nn.Conv2d(second, third, kernel, padding="same", bias=bias)
        self.fc1 = nn.Linear(third * 3 * 3, 64, bias=bias)
        self.fc2 = nn.Linear(64, 10, bias=bias)

    def forward(self, images: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(self.normalize(images))), 3, stride=2)
        x = F.avg_pool2d(F.relu(self.conv2(x)), 3, stride=2)
        x = F.avg_pool2d(F.relu(self.conv3(x)), 3, stride=2)
        return self.fc2(self.fc1(x.flatten(1)))


# Table 1 as printed, 433 354 parameters; and the network of EMPIR's code, which Table 4 compares, 116 704
table1 = partial(CIFARConv, kernel=8, channels=(32, 64, 64), bias=True)
empir = partial(CIFARConv, kernel=5, channels=(32, 32, 64), bias=False)
