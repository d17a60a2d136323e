"""Readings of the machine's counters."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self, TypeVar


@dataclass(frozen=True, slots=True)
class Reading:
    """Counts read at one moment, or their growth between two."""

    def since(self, earlier: Self) -> Self:
        return type(self)(*(getattr(self, one.name) - getattr(earlier, one.name) for one in fields(self)))

    def __add__(self, other: Self) -> Self:
        return type(self)(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


Key = TypeVar("Key", int, str)
AnyReading = TypeVar("AnyReading", bound=Reading)


def since(later: Mapping[Key, AnyReading], earlier: Mapping[Key, AnyReading]) -> dict[Key, AnyReading]:
    """The growth of each; one that was not there before counts from 0."""
    return {key: now.since(earlier[key]) if key in earlier else now for key, now in later.items()}
