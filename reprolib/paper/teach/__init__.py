"""What the lessons call: checks of a student's functions, scores of her predictions, pictures of attacks."""

from reprolib.paper.teach.checks import answer, check, score
from reprolib.paper.teach.looks import accuracy, curve_table, gradient, printed, rounding_table, sharpened
from reprolib.paper.teach.pictures import plot_attack, plot_curves, plot_margins, plot_surfaces

__all__ = [
    "accuracy",
    "answer",
    "check",
    "curve_table",
    "gradient",
    "plot_attack",
    "plot_curves",
    "plot_margins",
    "plot_surfaces",
    "printed",
    "rounding_table",
    "score",
    "sharpened",
]


def __dir__() -> list[str]:
    return __all__
