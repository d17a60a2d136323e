"""Directories that live as long as a trial, named after their maker: what a killed lab left can be told."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from lab.netns import namespaces as netns

_MAKER = "maker"


def directory(label: str) -> Path:
    """A new one of this process, for ``label``."""
    return Path(tempfile.mkdtemp(prefix=f"{netns.new_name(label)}-"))


def claim(path: Path) -> None:
    """Say that a directory ``mcl-…``, whose name says something else, is this process's."""
    (path / _MAKER).write_text(netns.new_name(path.name))


def remove_leftovers() -> list[Path]:
    """Remove the directories whose makers have gone; which ones they were."""
    removed = []
    for path in sorted(Path(tempfile.gettempdir()).glob(f"{netns.PREFIX}*")):
        if path.is_dir() and not path.is_symlink() and _is_left_behind(path):
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path)
    return removed


def _is_left_behind(path: Path) -> bool:
    try:
        name = (path / _MAKER).read_text()
    except OSError:
        name = path.name
    return netns.maker_is_gone(name)
