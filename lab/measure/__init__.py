"""Readings of the machine, each a frozen dataclass whose ``since`` is the difference of two."""
