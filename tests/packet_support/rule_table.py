"""The compiled rule table with the calls that tests make."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from forwarder.engines.packet import rule_table


class RuleTable:
    """Rules of a worker, one change at a time; the arrays are replaced when they grow."""

    def __init__(self, *, rules: int = 16) -> None:
        self._rules = rule_table.new_table(rules=rules)

    def __len__(self) -> int:
        return int(self._rules.sizes[rule_table.RULES])

    @property
    def keys(self) -> NDArray[np.uint64]:
        return self._rules.keys

    @property
    def values(self) -> NDArray[np.uint32]:
        return self._rules.values

    @property
    def spans(self) -> NDArray[np.uint32]:
        return self._rules.spans

    @property
    def outputs(self) -> NDArray[np.uint32]:
        return self._rules.outputs

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays, capacity included."""
        return sum(array.nbytes for array in self._rules[:4])

    def add(self, key: int, slot: int, outputs: NDArray[np.uint32]) -> None:
        self._rules = rule_table.add_rules(
            self._rules,
            np.array([key], np.uint64),
            np.array([slot], np.uint32),
            np.array([len(outputs)], np.uint32),
            outputs,
        )

    def remove(self, key: int) -> bool:
        return rule_table.remove_rule(self._rules, np.uint64(key))
