"""Settings that only a process inside a namespace can make: sysctls, sysfs files, device features.

Run by ``lab/build.py`` as ``python -m lab.inside`` inside the namespace, with one JSON object on stdin:
``{"files": {path or glob: text}, "features": {interface: {feature: on}}}``. Every setting is read back; the
program ends with status 1 and one line on stderr for each that did not take, so that a lab is never built
other than asked.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path


def write_file(pattern: str, text: str) -> Iterator[str]:
    """Write every file that matches; yields problems."""
    paths = sorted(Path("/").glob(pattern.lstrip("/")))
    if not paths:
        yield f"{pattern}: no such file"
    for path in paths:
        try:
            path.write_text(text)
        except OSError as error:
            yield f"{path}: cannot write {text!r}: {error.strerror}"


def set_features(interface: str, wanted: dict[str, bool]) -> Iterator[str]:
    """Switch ethtool features; yields those that are missing or did not take."""
    from pyroute2.ethtool.ioctl import IoctlEthtool

    device = IoctlEthtool(interface)
    try:
        features = device.get_features()
        known = set(features.keys())
        for name, on in wanted.items():
            if name in known and features.is_active(name) != on:
                features[name] = on
        device.set_features(features)
        after = device.get_features()
        for name, on in wanted.items():
            # An older kernel that lacks a feature has it off.
            if (name in known and after.is_active(name)) != on:
                yield f"{interface}: feature {name} did not become {'on' if on else 'off'}"
    finally:
        device.close()


def main() -> int:
    settings = json.load(sys.stdin)
    problems: list[str] = []
    for pattern, text in settings["files"].items():
        problems += write_file(pattern, text)
    for interface, wanted in settings["features"].items():
        problems += set_features(interface, wanted)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
