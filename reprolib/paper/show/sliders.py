"""An attack to play with: sliders in JupyterLab, and where nobody can drag them, what they show at first."""

from __future__ import annotations

import base64
import functools
import io

import matplotlib.pyplot as plt
import torch
from IPython.display import display as show_in_notebook
from torch import Tensor, nn

from reprolib import attacks
from reprolib.paper.show.gallery import WRONG, answers, magnified

ORDER = ("probabilities", "logits", "margin")
STEPS = 5  # so that an answer takes a tenth of a second
ROWS = "In rows: the original, the change (magnified; grey is none), after the attack."
ALT = "The images in three rows: original, change magnified, after the attack. What the network says stands below."


def explore(model: nn.Module, images: Tensor, labels: Tensor, classes: tuple[str, ...]) -> None:
    """A slider for eps and buttons for the loss, above what `explored` then says."""
    import ipywidgets

    ask = functools.partial(explored, model, images, labels, classes)
    eps = ipywidgets.FloatSlider(value=0.1, min=0, max=0.3, step=0.01, description="eps")
    loss = ipywidgets.ToggleButtons(options=ORDER, description="loss")
    shown = ipywidgets.HTML(ask(eps.value, loss.value))
    for control in (eps, loss):
        control.observe(lambda change: setattr(shown, "value", ask(eps.value, loss.value)), "value")
    view = ipywidgets.VBox([eps, loss, shown])._repr_mimebundle_()
    show_in_notebook(view | {"text/html": shown.value, "text/plain": ALT}, raw=True)


def explored(model: nn.Module, images: Tensor, labels: Tensor, classes: tuple[str, ...], eps: float, loss: str) -> str:
    """HTML: what IFGSM in a few steps makes of the images, float32 [n, C, H, W] in [0, 1], labels int64 [n]."""
    result = attacks.ifgsm(model, eps, 2.5 * eps / STEPS, STEPS, loss=loss).run(images, labels)
    said = answers(model, result.adversarial, labels, classes)
    text = "".join(f'<div style="color:{"inherit" if right else WRONG}">{line}</div>' for line, right in said)
    picture = mosaic(images, magnified(images, result.adversarial)[0], result.adversarial)
    columns = f"display:grid;grid-template-columns:repeat({len(images)},1fr)"
    return (
        f"<p>eps {eps:.2f}, loss {loss}: {int(result.robust().sum())} of {len(images)} images stand. {ROWS}</p>"
        f'<div style="{columns};max-width:900px;font-size:11px;line-height:1.4;text-align:center;white-space:pre-line">'
        f'<img alt="{ALT}" src="{picture}" style="grid-column:1/-1;width:100%;image-rendering:pixelated">{text}</div>'
    )


def mosaic(*rows: Tensor) -> str:
    """Images float32 [n, C, H, W] in [0, 1], n in a row, as the address of a PNG: drawing axes would take a second."""
    tiles = torch.cat([torch.cat(list(row), 2) for row in rows], 1)
    file = io.BytesIO()
    plt.imsave(file, tiles.permute(1, 2, 0).expand(-1, -1, 3).numpy(), format="png", metadata={"Software": None})
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
