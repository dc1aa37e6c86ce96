"""A thin library for one paper, in two storeys.

The method: `patches`, `attacks`, `networks`, `defenses`, `data`, `training`, `diagnostics`; tensors in, tensors out,
each usable alone. The apparatus: `paper`, the reproduction itself. Imports run from the apparatus to the method, never
back.
"""

__version__ = "0.1.0"
