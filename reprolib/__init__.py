"""A thin library for one paper, in two storeys.

The method: `patches`, `attacks`, `networks`, `defenses`, `data`, `training`, `diagnostics`; tensors in, tensors out,
each usable alone. The apparatus: `paper`, the reproduction itself. Imports run from the apparatus to the method, never
back.
"""

from importlib import import_module
from types import ModuleType

__version__ = "0.1.0"
__all__ = ["attacks", "data", "defenses", "diagnostics", "networks", "patches", "training"]
__all__ += ["devices", "paper", "streams"]


def __getattr__(name: str) -> ModuleType:
    """A room when it is first asked for: torch, which most of them import, takes seconds."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
