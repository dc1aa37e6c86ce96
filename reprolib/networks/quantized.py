"""Convolutions of few bits: the members of EMPIR's vote (Sen, Ravindran, Raghunathan 2020).

The quantiser is DoReFa-Net's (Zhou et al. 2016): numbers in [0, 1] go to the nearest of 2**bits levels, and the
gradient passes as if they had not (straight-through)."""

import copy

from torch import Tensor, nn

from reprolib.networks.layers import Normalize

FULL = 32  # bits of a number that is left as it is


def quantized(model: nn.Module, weight_bits: int, activation_bits: int) -> nn.Module:
    """A copy whose convolutions see weights and inputs of few bits, for training and for attacks; same state_dict.

    As in EMPIR's code all convolutions are quantised, the first one's input being the image in [0, 1] itself; other
    layers and biases are not. That code does not normalise, so with quantised inputs a `Normalize` passes images on:
    behind it half of each image would be clipped to black, and before it maps saturate and a training gets nowhere (10
    and 47 % on the sample of Fashion-MNIST for (4, 2) and (2, 2) bits, else 67 and 65 %).
    Bits are 1 to 16, for weights in [-1, 1] and inputs clipped to [0, 1], or 32, which leaves them as they are; EMPIR's
    members have (4, 2), (2, 2) and (32, 32). Raises ValueError for others, and unless all convolutions are `nn.Conv2d`.
    """
    for what, bits in (("weight_bits", weight_bits), ("activation_bits", activation_bits)):
        if bits != FULL and bits not in range(1, 17):
            raise ValueError(f"{what} is {bits!r}; expected 1 to 16, or {FULL} for numbers that stay as they are")
    network = copy.deepcopy(model)
    kinds = {type(module) for module in network.modules() if isinstance(module, nn.modules.conv._ConvNd)}
    if kinds != {nn.Conv2d}:
        other = ", ".join(sorted(kind.__name__ for kind in kinds - {nn.Conv2d}))
        found = f"layers of type {other}" if other else "no convolution"
        raise ValueError(f"{type(model).__name__} has {found}; quantized() takes networks with plain nn.Conv2d only")
    for module in network.modules():  # changes of class keep parameters, hooks and mode
        if isinstance(module, nn.Conv2d) and not weight_bits == activation_bits == FULL:
            module.__class__ = _QuantizedConv2d
            module.__dict__.update(weight_bits=weight_bits, activation_bits=activation_bits)
        elif isinstance(module, Normalize) and activation_bits != FULL:
            module.passes_on = True
    return network


def quantized_weights(weights: Tensor, bits: int) -> Tensor:
    """2 * q(tanh(w) / (2 * max|tanh(w)|) + 1/2) - 1 for weights of any shape: at most 2**bits values in [-1, 1]."""
    if bits == FULL:
        return weights
    bounded = weights.tanh()
    largest = bounded.abs().max().clamp(min=1e-7)  # no division by 0
    return 2 * quantized_activations(bounded / (2 * largest) + 0.5, bits) - 1


def quantized_activations(values: Tensor, bits: int) -> Tensor:
    """q: numbers of any shape, clipped to [0, 1], at the nearest of 2**bits levels, with their own gradient inside."""
    if bits == FULL:
        return values
    steps, fixed = 2**bits - 1, values.detach()
    clipped = fixed.clamp(0, 1)  # EMPIR's TensorFlow lets the gradient pass at 0 and 1, too; torch's `clamp` does not
    return (clipped * steps).round() / steps + (values - fixed) * (fixed == clipped)  # what is added is 0


class _QuantizedConv2d(nn.Conv2d):
    weight_bits: int
    activation_bits: int

    def forward(self, x: Tensor) -> Tensor:
        weights = quantized_weights(self.weight, self.weight_bits)
        return self._conv_forward(quantized_activations(x, self.activation_bits), weights, self.bias)
