"""How CPUs are divided between bench and forwarder."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.trial.plan import Cpus, divide


@pytest.mark.parametrize(
    ("available", "bench", "forwarder"),
    [
        ({0}, (0,), (0,)),
        ({0, 1}, (0,), (1,)),
        ({0, 1, 2}, (0, 1), (2,)),
        ({2, 3, 5, 7}, (2, 3), (5, 7)),
    ],
)
def test_the_forwarder_has_the_upper_half(
    available: set[int], bench: tuple[int, ...], forwarder: tuple[int, ...]
) -> None:
    assert divide(available) == Cpus(bench, forwarder)


@given(st.sets(st.integers(0, 255), min_size=2), st.data())
def test_what_is_asked_for_is_given_and_the_rest_is_the_benchs(
    available: set[int], data: st.DataObject
) -> None:
    most = sorted(available)[1:]
    asked = data.draw(st.sets(st.sampled_from(most), min_size=1))
    cpus = divide(available, asked)
    assert cpus.apart
    assert set(cpus.forwarder) == asked
    assert {*cpus.bench, *cpus.forwarder} == available
    assert cpus.sender in cpus.bench
    assert set(cpus.receivers) <= set(cpus.bench)
    assert not cpus.shared.apart
    assert (cpus.one.apart, len(cpus.one.forwarder)) == (True, 1)
    assert [each.bench for each in cpus.each] == [(cpu,) for cpu in sorted(available)]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({4}, "there is no CPU 4 here"),
        ({0, 1}, "no CPU is left for generator and receivers"),
        (set(), "no CPU is named"),
        ({0, 1, 2}, "there is no CPU 2 here"),
    ],
)
def test_cpus_that_cannot_be_had_are_refused(asked: set[int], why: str) -> None:
    with pytest.raises(ValueError, match=f"^{why}; allowed: CPUs of 0, 1, at least one and not all$"):
        divide({0, 1}, asked)


def test_one_cpu_cannot_be_divided() -> None:
    with pytest.raises(ValueError, match="allowed: none, as the one CPU here, 3, is shared"):
        divide({3}, {3})
