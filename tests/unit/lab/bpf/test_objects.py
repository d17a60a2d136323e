"""The committed objects were compiled from the committed sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.bpf.build import HERE, digest, object_of, sources


def test_every_object_has_its_source() -> None:
    assert {object_of(source) for source in sources()} == set(HERE.glob("*.o")) != set()


@pytest.mark.parametrize("source", sources(), ids=lambda source: source.name)
def test_an_object_carries_the_digest_of_its_source(source: Path) -> None:
    made = object_of(source).read_bytes()
    assert digest(source).encode() in made, f"{source.name} has changed: python -m lab.bpf.build"
    assert f"/{HERE.name}/{source.name}".encode() not in made, "a path of the machine that compiled it"
