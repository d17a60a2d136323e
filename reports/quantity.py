"""Numbers as text, with no more digits than were measured."""

import math

NONE = "–"

NS_PER_US = 1_000
NS_PER_S = 1_000_000_000
BYTES_PER_MB = 1_000_000
"""Decimal, as the architecture document counts: 1,000 rules of 1 KB are 1 MB."""


def count(value: int | None) -> str:
    return NONE if value is None else f"{value:,}"


def rate(per_second: float | None) -> str:
    """Four significant digits, in full: ``358,400``."""
    if per_second is None:
        return NONE
    if per_second == 0 or not math.isfinite(per_second):
        return f"{per_second:g}"
    places = 3 - math.floor(math.log10(abs(per_second)))
    return f"{round(per_second, places):,.{max(0, min(places, 2))}f}"


def predicted(value: float) -> str:
    """Three significant digits, in full: a prediction has no more."""
    return f"{float(f'{value:.3g}'):,.0f}"


def ratio(value: float) -> str:
    """Two decimals near one, fewer for large ratios, more for small ones."""
    if not math.isfinite(value):
        return f"{value:g}"
    size = abs(value)
    places = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 or size == 0 else 4
    return f"{value:.{places}f}"


def interval(low: float, high: float) -> str:
    return f"{ratio(low)} to {ratio(high)}"


def percent(share: float) -> str:
    """``0 %`` means none at all: the smallest loss is never rounded down to it."""
    value = share * 100
    if value == 0:
        return "0 %"
    if abs(value) < 0.001:
        return "under 0.001 %"
    if abs(value) >= 99.95 and abs(value) < 100:
        return f"{value:.3f} %"
    return f"{value:.3g} %"


def megabytes(size: int | float | None) -> str:
    if size is None:
        return NONE
    value = size / BYTES_PER_MB
    places = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{places}f}"


def microseconds(ns: int | float | None) -> str:
    if ns is None:
        return NONE
    value = ns / NS_PER_US
    places = 1 if value < 100 else 0
    return f"{value:,.{places}f}"


def seconds(ns: int | float | None) -> str:
    return NONE if ns is None else f"{ns / NS_PER_S:,.2f}"


def plural(number: int, noun: str, many: str = "") -> str:
    """``plural(3, "trial")`` is ``3 trials``."""
    return f"{number:,} {noun if number == 1 else many or noun + 's'}"


def capitalized(text: str) -> str:
    """``CPU per copy`` stays as it is: only the first letter changes."""
    return f"{text[:1].upper()}{text[1:]}"


def listed(items: list[str]) -> str:
    """``a, b and c``."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"
