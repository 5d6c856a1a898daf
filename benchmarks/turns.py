"""Measures variants in turns in one process, so that a busy machine affects all of them equally."""

import statistics
from collections.abc import Callable, Mapping, Sequence

Figures = Mapping[str, Sequence[float]]


def in_turns(variants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """The values of each variant in every round, after a warm-up round."""
    found: dict[str, list[float]] = {name: [] for name in variants}
    for index in range(rounds + 1):
        for name, measure in variants.items():
            figure = measure()
            if index:
                found[name].append(figure)
    return found


def medians(figures: Figures, digits: int = 4) -> dict[str, float]:
    """The median of each variant."""
    return {name: round(statistics.median(values), digits) for name, values in figures.items()}


def ratio(figures: Figures, one: str, other: str, digits: int = 2) -> float:
    """The median over the rounds of one variant's value divided by the other's in the same round."""
    pairs = zip(figures[one], figures[other], strict=True)
    return round(statistics.median(a / b for a, b in pairs), digits)
