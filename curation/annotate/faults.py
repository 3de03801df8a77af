"""Why an object's quality is what it is: the components that pull it down, and those that are not known."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from refloom.curation.annotate.quality import ramp
from refloom.curation.annotate.settings import Quality
from refloom.schemas.components import COMPONENTS

_SOUND = 0.8
"""A component of this score or more is no fault."""
_LEAST = 1e-6


@dataclass(frozen=True, slots=True)
class Fault:
    """A component that pulls a quality down.

    Attributes:
        component: its name.
        score: that its ramp makes of it, 0 to 1.
        lost: what it takes from the quality: the quality without it, minus the quality.
    """

    component: str
    score: float
    lost: float

    def __str__(self) -> str:
        return f"{word(self.component)} {self.score:.1f}"


def faults(values: Mapping[str, float | None], kind: str, settings: Quality) -> list[Fault]:
    """What pulls an object's quality down, the worst first; none where all is sound.

    Args:
        values: component to its value; None, NaN or no entry where it is not known.
        kind: object, whole or face.
        settings: that the quality was made with.
    """
    weights = settings.counted(kind)
    scores = {name: _score(values.get(name), settings, name) for name, weight in weights.items() if weight}
    known = {name: score for name, score in scores.items() if score is not None}
    total = sum(weights[name] * np.log(score) for name, score in known.items())
    whole = sum(weights[name] for name in known)
    found = []
    for name, score in known.items():
        others = whole - weights[name]
        if score < _SOUND and others:
            without = float(np.exp((total - weights[name] * np.log(score)) / others))
            found.append(Fault(name, score, without - float(np.exp(total / whole))))
    return sorted((fault for fault in found if fault.lost > 0), key=lambda fault: (-fault.lost, fault.component))


def unknown(values: Mapping[str, float | None], kind: str, settings: Quality) -> list[str]:
    """Components that the quality was made without, or could not be made without, in the order of the settings."""
    return [name for name in settings.counted(kind) if _score(values.get(name), settings, name) is None]


def word(component: str) -> str:
    """What is wrong with an object for which a component has a low score."""
    declared = COMPONENTS[component].fault if component in COMPONENTS else ""
    return declared or component.replace("_", " ")


def _score(value: float | None, settings: Quality, name: str) -> float | None:
    if value is None or np.isnan(value):
        return None
    return max(float(ramp(np.array([value], np.float64), settings.ramp_of(name))[0]), _LEAST)
