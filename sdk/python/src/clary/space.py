"""What a study may choose: search spaces and objectives."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import Invalid

Value = float | int | str | bool
"""A value of a parameter."""


@dataclass(frozen=True)
class Float:
    """A number from low to high. `scale` is where equal steps matter equally: linear, log, reverse_log or logit."""

    low: float
    high: float
    scale: str = "linear"
    step: float | None = None
    default: float | None = None
    when: tuple[str, Sequence[Value]] | None = None


@dataclass(frozen=True)
class Int:
    """A whole number from low to high, both included."""

    low: int
    high: int
    scale: str = "linear"
    step: int | None = None
    default: int | None = None
    when: tuple[str, Sequence[Value]] | None = None


@dataclass(frozen=True)
class Choice:
    """One of several values; if they are ordered, neighbours are alike."""

    values: Sequence[Value]
    ordered: bool = False
    default: Value | None = None
    when: tuple[str, Sequence[Value]] | None = None


Parameter = Float | Int | Choice | Sequence[Value] | Value
"""A parameter. A pair (low, high) is a Float, or an Int if both are whole; a list is a Choice; a value is constant."""


def parameter_spec(name: str, parameter: Parameter) -> dict[str, Any]:
    """A parameter as a job's spec has it. What it says is checked by the cluster."""
    if isinstance(parameter, tuple) and len(parameter) == 2:
        low, high = parameter
        if _whole(low) and _whole(high):
            parameter = Int(int(low), int(high))
        elif not isinstance(low, (str, bool)) and not isinstance(high, (str, bool)):
            parameter = Float(low, high)
    elif isinstance(parameter, list):
        parameter = Choice(parameter)
    spec: dict[str, Any] = {"name": name}
    if isinstance(parameter, (Float, Int)):
        spec |= {"type": "int" if isinstance(parameter, Int) else "float", "low": parameter.low, "high": parameter.high}
        if parameter.scale != "linear":
            spec["scale"] = parameter.scale
        if parameter.step is not None:
            spec["step"] = parameter.step
    elif isinstance(parameter, Choice):
        spec |= {"type": "ordered" if parameter.ordered else "categorical", "choices": list(parameter.values)}
    elif isinstance(parameter, (bool, int, float, str)):
        return spec | {"type": "constant", "value": parameter}
    else:
        raise Invalid(
            f"space[{name!r}]: {parameter!r} is no parameter: give clary.Float, Int or Choice, a pair (low, high) of numbers, "
            "a list of choices, or a value"
        )
    if parameter.default is not None:
        spec["default"] = parameter.default
    if parameter.when is not None:
        spec["when"] = {"parameter": parameter.when[0], "in": list(parameter.when[1])}
    return spec


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def space_spec(space: Mapping[str, Parameter], constraints: Sequence[str] = ()) -> dict[str, Any]:
    """A search space as a job's spec has it."""
    spec: dict[str, Any] = {"parameters": [parameter_spec(name, p) for name, p in space.items()]}
    if constraints:
        spec["constraints"] = list(constraints)
    return spec


_LIMIT = re.compile(r"(.+?)\s*([<>])=\s*(\S+)")


def limit_specs(texts: Sequence[str]) -> list[dict[str, Any]]:
    """Limits such as "memory<=800" as a job's spec has them: one entry for each metric."""
    limits: dict[str, dict[str, Any]] = {}
    for text in texts:
        found = _LIMIT.fullmatch(text.strip())
        try:
            bound = float(found[3]) if found else math.nan
        except ValueError:
            bound = math.nan
        if found is None or not math.isfinite(bound):
            raise Invalid(f"limit {text!r}: give METRIC<=NUMBER or METRIC>=NUMBER, like memory<=800")
        limits.setdefault(found[1], {"name": found[1]})["max" if found[2] == "<" else "min"] = bound
    return list(limits.values())


def objective_spec(text: str) -> dict[str, str]:
    """An objective such as "min:loss" or "max:accuracy" as a job's spec has it."""
    direction, colon, name = text.partition(":")
    words = {"min": "minimize", "minimize": "minimize", "max": "maximize", "maximize": "maximize"}
    if not colon or not name or direction not in words:
        raise Invalid(f"objective {text!r}: give min:METRIC or max:METRIC, like min:loss")
    return {"name": name, "direction": words[direction]}
