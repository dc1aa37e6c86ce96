"""An attack as a declaration says it, and the one place where attacks are built; the paper's own are in
params/attacks.yaml.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import pydantic
from torch import nn

from reprolib import attacks, data
from reprolib.paper.parameters import checked, suggest
from reprolib.paper.plan.records import PARAMS, Record, SpecError, read_yaml


class Attack(Record):
    """A name of `attacks.named()` with that attack's parameters, but for what an evaluation adds: loss, decision,
    seed.
    """

    model_config = pydantic.ConfigDict(extra="allow")
    name: str

    @pydantic.model_validator(mode="after")
    def _can_be_built(self) -> Attack:
        for given in self.parameters:
            if given in ("loss", "decision", "seed"):
                raise ValueError(
                    f"{given} is no parameter of an attack here: a row has its losses, an evaluation its seed"
                )
        _built(self.name, nn.Identity(), self.parameters)
        return self

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    def build(self, model: nn.Module, loss: str, decision: str, seed: int) -> Any:
        """The attack on a network."""
        return _built(self.name, model, self.parameters | {"loss": loss, "decision": decision, "seed": seed})

    def takes(self, **options: str) -> bool:
        """Whether the attack can be had with these options: AutoAttack has no last iterate that could be judged."""
        try:
            _built(self.name, nn.Identity(), self.parameters | options)
        except ValueError:
            return False
        return True

    def get(self, parameter: str, default: Any = None) -> Any:
        """A parameter, or what the attack takes where none is given."""
        usual = inspect.signature(attacks.named()[self.name]).parameters.get(parameter)
        usual_value = default if usual is None or usual.default is usual.empty else usual.default
        return self.parameters.get(parameter, usual_value)

    def but(self, **changes: Any) -> Attack:
        return Attack(name=self.name, **self.parameters | changes)

    def within(self, eps: float) -> Attack:
        """With another radius; alpha keeps its share of it, so that the run crosses the ball as often."""
        alpha, usual = self.get("alpha"), self.get("eps")
        return self.but(eps=eps, **({} if alpha is None or not eps else {"alpha": round(alpha * eps / usual, 6)}))

    def limited(self, steps: int, restarts: int) -> Attack:
        """With at most so many steps and restarts.

        Where steps are cut, alpha grows so that the run can still cross the ball two and a half times.
        """
        changes: dict[str, Any] = {}
        if self.get("steps", 0) > steps:
            changes["steps"] = steps
            if self.get("alpha") is not None:
                changes["alpha"] = max(self.get("alpha"), round(2.5 * self.get("eps") / steps, 6))
        if self.get("restarts", 0) > restarts:
            changes["restarts"] = restarts
        return self.but(**changes) if changes else self


def _built(name: str, model: nn.Module, parameters: dict[str, Any]) -> Any:
    known = attacks.named()
    if name not in known:
        raise ValueError(suggest(name, known, "attack"))
    return known[name](**checked(known[name], {"model": model} | parameters, name))


@functools.cache
def _printed() -> dict[str, dict[str, Attack]]:
    return {
        dataset: {label: Attack(**fields) for label, fields in rows.items()}
        for dataset, rows in read_yaml(PARAMS / "attacks.yaml").items()
    }


def attacks_of(dataset: str) -> dict[str, Attack]:
    """Table 2's attacks on a data set, by their printed names; none for a data set that the paper has not."""
    if dataset not in data.names():
        raise SpecError(suggest(dataset, data.names(), "data set"))
    return _printed().get(dataset, {})
