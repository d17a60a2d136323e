"""Existing interfaces instead of veth: a file that says which are cabled to which. Pure.

::

    # Each pair is a cable: the end that sends, the end that receives.
    inputs = [["eth1", "eth2"]]     # generator to forwarder
    outputs = [["eth3", "eth4"]]    # forwarder to receivers

A trial without a forwarder (calibration) uses the input cables, their receiving ends being the receivers'.
"""

import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from forwarder.problems import Problem, ProblemsError, from_pydantic
from lab.load.topology import Cable, Topology
from lab.scenario.model import Scenario

Pair = tuple[str, str]

MAX_NAME = 15
"""IFNAMSIZ less the closing zero (linux/if.h)."""


class WiresError(ProblemsError):
    """A file of wires that cannot be used, or is too small for what is to run on it."""


class Wires(BaseModel):
    """The cables of a lab bench."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: tuple[Pair, ...]
    outputs: tuple[Pair, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for pair in (*self.inputs, *self.outputs) for name in pair)

    def under(self, topology: Topology) -> Topology:
        """``topology`` on these cables. Raises :class:`WiresError` where it needs more of them."""
        outputs = 0 if topology.direct else topology.outputs
        wanted = (("inputs", topology.inputs, self.inputs), ("outputs", outputs, self.outputs))
        problems = [
            Problem(name, f"{len(pairs)} cables", f"at least {count} for a case with {count} {name}")
            for name, count, pairs in wanted
            if count > len(pairs)
        ]
        if problems:
            raise WiresError(problems)
        chosen = (*self.inputs[: topology.inputs], *self.outputs[:outputs])
        return replace(topology, cables=tuple(Cable(*pair) for pair in chosen))


def misfits(wires: Wires, scenarios: Iterable[Scenario]) -> Iterator[Problem]:
    """What scenarios ask for that these cables cannot give."""
    for scenario in scenarios:
        if scenario.pipelines:
            allowed = "left out with --wires: each pipeline has links of its own"
            yield Problem(f"{scenario.name}: pipelines", str(len(scenario.pipelines)), allowed)
        for case in scenario.case:
            values = scenario.settings_of(case)
            for name, pairs in (("inputs", wires.inputs), ("outputs", wires.outputs)):
                if (wanted := getattr(values, name)) > len(pairs):
                    where = f"{scenario.name}: case {case.name!r}: {name}"
                    yield Problem(where, str(wanted), f"at most {len(pairs)}: so many cables are there")
            if values.generator == "xdp":
                where = f"{scenario.name}: case {case.name!r}: generator"
                yield Problem(where, "'xdp'", "'packet' with --wires: live frames are for veth")


def load_wires(path: Path) -> Wires:
    """The wires in a TOML file. Raises :class:`WiresError` with every problem."""
    try:
        wires = Wires.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise WiresError([Problem("--wires", str(path), f"a TOML file ({error})")]) from None
    except tomllib.TOMLDecodeError as error:
        raise WiresError([Problem(str(path), "not TOML", str(error))]) from None
    except ValidationError as error:
        raise WiresError(from_pydantic(error, prefix=f"{path}: ")) from None
    if problems := list(_problems(wires, path)):
        raise WiresError(problems)
    return wires


def _problems(wires: Wires, path: Path) -> Iterator[Problem]:
    for name in sorted(set(wires.names)):
        if wires.names.count(name) > 1:
            yield Problem(str(path), repr(name), "each interface once")
        if not 1 <= len(name) <= MAX_NAME:
            yield Problem(str(path), repr(name), f"an interface name of 1 to {MAX_NAME} letters")
    for field, pairs in (("inputs", wires.inputs), ("outputs", wires.outputs)):
        if not pairs:
            yield Problem(f"{path}: {field}", "no cable", "at least one pair of interfaces")
