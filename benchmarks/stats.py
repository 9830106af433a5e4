"""The little statistics that the measurements need."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0 to 1) of the values lie, between neighbours by weight."""
    if not values:
        raise ValueError("There is no percentile of nothing.")
    if not 0 <= share <= 1:
        raise ValueError("A share is from 0 to 1.")
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Median of the ratios round by round: what slows the machine for a while slows both.

    ``None`` when there is nothing to compare with.
    """
    pairs = [(mine, other) for mine, other in zip(ours, theirs, strict=False) if other]
    return median(mine / other for mine, other in pairs) if pairs else None


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The steepness of the straight line that fits the points best (least squares)."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if not spread:
        raise ValueError("A slope needs points that lie apart.")
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
