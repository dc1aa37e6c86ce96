"""The two networks that the paper's Table 1 describes. Inputs are images in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reprolib import winograd
from reprolib.layers import Normalize


class FMNISTConv(nn.Module):
    """F-MNISTconv of Table 1: 8x8x64, 6x6x128, 5x5x128, fully connected 10; 710 218 parameters.

    The table gives no strides or padding. Filter for filter this is CleverHans' basic CNN, whose strides (2, 2, 1) and
    padding (same, valid, valid) are used here. Images [B, 1, 28, 28] in [0, 1] -> logits [B, 10].
    """

    def __init__(self):
        super().__init__()
        self.normalize = Normalize((0.2860,), (0.3530,))
        self.conv1 = nn.Conv2d(1, 64, 8, stride=2, padding=3)
        self.conv2 = nn.Conv2d(64, 128, 6, stride=2)
        self.conv3 = nn.Conv2d(128, 128, 5)
        self.fc = nn.Linear(128, 10)
        self.frozen = None, None  # a state of conv2's filters, and what was worked out of them

    def forward(self, images: Tensor) -> Tensor:
        x = F.pad(self.normalize(images), (3, 3, 3, 3))
        if images.is_cuda or torch.is_autocast_enabled(images.device.type):
            x = self.conv2(F.relu(_conv_on_quarters(x, self.conv1, F.conv2d))).permute(2, 3, 0, 1).flatten(0, 1)
        else:
            frozen = not self.conv1.weight.requires_grad
            x = _conv_on_quarters(x, self.conv1, _FrozenConv.apply if frozen else F.conv2d)
            x = self._conv2_by_winograd(x)
        # 5x5 filters on a 5x5 map are a matrix product, several times faster as such on a CPU
        x = F.relu(x).transpose(0, 1).flatten(1)
        x = F.relu(F.linear(x, self.conv3.weight.permute(0, 2, 3, 1).flatten(1), self.conv3.bias))
        return self.fc(x)

    def _conv2_by_winograd(self, x: Tensor) -> Tensor:
        """relu(x) [B, 64, 14, 14] through the 6x6 filters of stride 2, as 3x3 filters of stride 1 on four times the
        channels -> [25, B, 128]. Float32 on CPUs only: elsewhere libraries are faster, and bfloat16 is too coarse.
        """
        maps = F.relu(x).permute(0, 2, 3, 1).reshape(-1, 7, 2, 7, 2, 64).permute(1, 3, 0, 2, 4, 5).reshape(49, -1, 256)
        return winograd.convolve(maps, self._filters_at_points()) + self.conv2.bias

    def _filters_at_points(self) -> Tensor:
        """[49, 256, 128], worked out once while nobody trains them: an attack asks the same network thousands of times."""
        weight = self.conv2.weight
        if weight.requires_grad or weight.is_inference():
            return _at_points(weight)
        state = weight.data_ptr(), weight._version  # another one as soon as anything is written into the filters
        if self.frozen[0] != state:
            with torch.inference_mode(False):  # a later call may want gradients
                self.frozen = state, _at_points(weight)
        return self.frozen[1]


def _at_points(weight: Tensor) -> Tensor:
    """6x6 filters [128, 64, 6, 6] of stride 2, as 3x3 filters on four times the channels, at Winograd's points."""
    filters = weight.unflatten(3, (3, 2)).unflatten(2, (3, 2)).permute(2, 4, 3, 5, 1, 0)
    return winograd.at_points(filters.reshape(9, 256, 128))


def _conv_on_quarters(x: Tensor, conv: nn.Conv2d, convolve: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """A stride-2 convolution with even kernel, as the stride-1 convolution of the image's four interleaved quarters.

    The same sums in another order. CPU libraries compute the input gradient of a strided one-channel convolution ten
    times more slowly, and attacks need nothing but input gradients.
    """
    quarters = F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last)
    return convolve(quarters, F.pixel_unshuffle(conv.weight, 2), conv.bias)


class _FrozenConv(torch.autograd.Function):
    """A stride-1 convolution whose filters nobody trains. Its input gradient is one matrix product, whose columns (one per
    tap of a filter) are then added up, each at its place. For one-channel images a CPU takes half as long that way.
    """

    @staticmethod
    def forward(context, maps: Tensor, filters: Tensor, bias: Tensor) -> Tensor:
        context.save_for_backward(filters)
        return F.conv2d(maps, filters, bias)

    @staticmethod
    def backward(context, gradient: Tensor) -> tuple[Tensor, None, None]:
        (filters,) = context.saved_tensors
        count, channels, high, wide = filters.shape
        batch, _, height, width = gradient.shape
        taps = gradient.permute(0, 2, 3, 1).flatten(0, 2) @ filters.permute(0, 3, 2, 1).reshape(count, -1)
        taps = taps.view(batch, height, width, wide, high * channels)
        rows = taps.new_zeros(batch, height, width + wide - 1, high * channels)
        for j in range(wide):
            rows[:, :, j : j + width] += taps[:, :, :, j]
        maps = taps.new_zeros(batch, height + high - 1, width + wide - 1, channels)
        for i in range(high):
            maps[:, i : i + height] += rows[..., i * channels : (i + 1) * channels]
        return maps.permute(0, 3, 1, 2), None, None


class CIFARConv(nn.Module):
    """CIFARconv in one of two readings. Images [B, 3, 32, 32] in [0, 1] -> logits [B, 10].

    `table1` is Table 1 as printed: 5x5x32, 8x8x64, 8x8x64 with biases; 433 354 parameters. `empir` is the network of
    the code that Table 4 compares with: 5x5x32, 5x5x32, 5x5x64 without biases; 116 704 parameters. Strides, padding
    and the activation after FC(64) are not printed: convolutions keep the size, 3x3 pools have stride 2 (32, 15, 7, 3
    pixels), and there is no activation between the two fully connected layers, as in that code.
    """

    def __init__(self, reading: str):
        super().__init__()
        kernel, widths, bias = {"table1": (8, (32, 64, 64), True), "empir": (5, (32, 32, 64), False)}[reading]
        self.normalize = Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
        self.conv1 = nn.Conv2d(3, widths[0], 5, padding="same", bias=bias)
        self.conv2 = nn.Conv2d(widths[0], widths[1], kernel, padding="same", bias=bias)
        self.conv3 = nn.Conv2d(widths[1], widths[2], kernel, padding="same", bias=bias)
        self.fc1 = nn.Linear(widths[2] * 3 * 3, 64, bias=bias)
        self.fc2 = nn.Linear(64, 10, bias=bias)

    def forward(self, images: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(self.normalize(images))), 3, stride=2)
        x = F.avg_pool2d(F.relu(self.conv2(x)), 3, stride=2)
        x = F.avg_pool2d(F.relu(self.conv3(x)), 3, stride=2)
        return self.fc2(self.fc1(x.flatten(1)))
