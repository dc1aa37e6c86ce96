"""F-MNISTconv, several times faster on a CPU, where an attack waits for three convolutions and their gradients."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reprolib.networks.cpu import winograd
from reprolib.networks.fmnistconv import FMNISTConv


class QuickFMNISTConv(FMNISTConv):
    """`FMNISTConv` with the same weights and answers, up to rounding, by other sums. It reads the filters without
    calling the layers, unless somebody replaced or hooked one (quantisation, pruning)."""

    held: dict[tuple[bool, torch.device], tuple[Tensor, ...]] | None = None  # filters, while somebody holds the weights

    def forward(self, images: Tensor) -> Tensor:
        x = self.normalize(images)
        for layer in (self.conv1, self.conv2, self.conv3):
            hooked = layer._forward_pre_hooks or layer._forward_hooks or layer._backward_hooks
            if hooked or type(layer) is not nn.Conv2d or not len(x):
                return super().forward(images)
        # elsewhere libraries are faster than Winograd, and for bfloat16 it is too coarse
        by_winograd = x.is_cpu and x.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")
        first, second, third = self._filters(by_winograd)
        x = F.pixel_unshuffle(F.pad(x, (3, 3, 3, 3)), 2).contiguous(memory_format=torch.channels_last)
        convolve = _FrozenConv.apply if by_winograd and not self.conv1.weight.requires_grad else F.conv2d
        x = F.relu(convolve(x, first, self.conv1.bias))
        if by_winograd:  # [B, 64, 14, 14] -> [25, B, 128], pixels first
            maps = x.permute(0, 2, 3, 1).reshape(-1, 7, 2, 7, 2, 64).permute(1, 3, 0, 2, 4, 5).reshape(49, -1, 256)
            x = winograd.convolve(maps, second) + (0 if self.conv2.bias is None else self.conv2.bias)
        else:
            x = self.conv2(x).permute(2, 3, 0, 1).flatten(0, 1)
        # 5x5 filters on a 5x5 map are a matrix product, several times faster as such on a CPU
        return self.fc(F.relu(F.linear(F.relu(x).transpose(0, 1).flatten(1), third, self.conv3.bias)))

    @contextmanager
    def weights_held(self) -> Iterator[None]:
        """A promise that nobody changes the weights inside, as in an attack, which asks thousands of times: what is
        worked out of frozen ones is then worked out once, and forgotten at the end of the outermost promise."""
        outer, self.held = self.held, {} if self.held is None else self.held
        try:
            yield
        finally:
            self.held = outer

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "held": None}  # nobody promised anything about a copy

    def _filters(self, at_points: bool) -> tuple[Tensor, ...]:
        weights = self.conv1.weight, self.conv2.weight, self.conv3.weight
        if self.held is None or any(weight.requires_grad for weight in weights):
            return _as_used(*weights, at_points)
        key = at_points, weights[0].device  # DataParallel's replicas share the dictionary
        if key not in self.held:
            with torch.inference_mode(False):  # a later call may want gradients
                self.held[key] = _as_used(*weights, at_points)
        return self.held[key]


def _as_used(first: Tensor, second: Tensor, third: Tensor, at_points: bool) -> tuple[Tensor, ...]:
    """The filters, of other shapes: those of stride 2 and even size become filters of stride 1 for four interleaved
    quarters. CPU libraries compute the input gradient of a strided one-channel convolution ten times more slowly."""
    if at_points:  # [128, 64, 6, 6] -> 3x3 filters at Winograd's points
        filters = second.unflatten(3, (3, 2)).unflatten(2, (3, 2)).permute(2, 4, 3, 5, 1, 0)
        second = winograd.at_points(filters.reshape(9, 256, 128))
    return F.pixel_unshuffle(first, 2), second, third.permute(0, 2, 3, 1).flatten(1)


class _FrozenConv(torch.autograd.Function):
    """A stride-1 convolution whose filters nobody trains. Its input gradient is one matrix product, whose columns (one
    per tap of a filter) are then added up, each at its place. For one-channel images a CPU takes half as long so."""

    @staticmethod
    def forward(context: Any, maps: Tensor, filters: Tensor, bias: Tensor | None) -> Tensor:
        context.save_for_backward(filters)
        return F.conv2d(maps, filters, bias)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
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
