"""A member of EMPIR (Sen et al. 2020), a network of few bits, trained as such. EMPIR itself is the vote of three
(networks.voted): 4-bit weights with 2-bit activations, 2 with 2, and 32."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from reprolib.defenses.base import Defence
from reprolib.networks.quantized import quantized


@dataclass(frozen=True)
class Quantised(Defence):
    """Weights and activations of so many bits, with straight-through gradients; see `networks.quantized`."""

    weight_bits: int
    activation_bits: int

    def __post_init__(self) -> None:
        self.network(nn.Sequential(nn.Conv2d(1, 1, 1, device="meta")))  # which refuses what are no numbers of bits

    def network(self, model: nn.Module) -> nn.Module:
        return quantized(model, self.weight_bits, self.activation_bits)
