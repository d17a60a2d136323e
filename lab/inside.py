"""Write sysctls and sysfs files from inside a namespace, where they mean that namespace's.

Run by ``lab/build.py`` as ``python -I -S lab/inside.py`` inside the namespace, with one JSON object on stdin:
``{path or glob: text}``. It ends with status 1 and a line on stderr for each file that did not take its text,
so that a lab is never built other than asked. Only the standard library, and little of it.
"""

from __future__ import annotations

import glob
import json
import sys


def write(pattern: str, text: str) -> list[str]:
    """Write every file that matches; returns the problems."""
    paths = sorted(glob.glob(pattern))  # noqa: PTH207 (pathlib takes longer to import than all this to run)
    problems = [] if paths else [f"{pattern}: no such file"]
    for path in paths:
        try:
            with open(path, "w") as file:  # noqa: PTH123
                file.write(text)
        except OSError as error:
            problems.append(f"{path}: cannot write {text!r}: {error.strerror}")
    return problems


def main() -> int:
    problems = [problem for pattern, text in json.load(sys.stdin).items() for problem in write(pattern, text)]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
