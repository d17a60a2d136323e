"""The committed objects were compiled from the committed sources."""

from __future__ import annotations

from pathlib import Path

import pytest

import forwarder
import lab.bpf
from forwarder.abi.bpf_build import digest, object_of, sources

FOLDERS = (lab.bpf.HERE, Path(forwarder.__file__).parent / "engines/xdp")
SOURCES = [source for folder in FOLDERS for source in sources(folder)]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_object_has_its_source(folder: Path) -> None:
    assert {object_of(source) for source in sources(folder)} == set(folder.glob("*.o")) != set()


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_an_object_carries_the_digest_of_its_source(source: Path) -> None:
    made = object_of(source).read_bytes()
    rebuild = f"python -m forwarder.abi.bpf_build {source.parent}"
    assert digest(source).encode() in made, f"{source.name} has changed: {rebuild}"
    assert f"/{source.parent.name}/{source.name}".encode() not in made, "a path of the machine"
