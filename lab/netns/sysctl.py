"""Write sysctls and sysfs files from inside a namespace, where they mean that namespace's.

Run by ``lab/netns/steering.py`` as ``python -I -S sysctl.py`` inside the namespace, with one JSON object on
stdin: ``{path or glob: text}``, with ``null`` where it is only read. Prints what was there before, one JSON
object ``{path: text}``. It ends with status 1 and a line on stderr for each file that did not take its text.
Only the standard library, and little of it.
"""

import glob
import json
import sys


def write(pattern: str, text: str | None, before: dict[str, str]) -> list[str]:
    """Write every file that matches, and note what was in it; returns the problems."""
    paths = sorted(glob.glob(pattern))  # noqa: PTH207 (pathlib takes longer to import than all this to run)
    problems = [] if paths else [f"{pattern}: no such file"]
    for path in paths:
        try:
            with open(path) as file:  # noqa: PTH123
                before[path] = file.read()
            if text is not None:
                with open(path, "w") as file:  # noqa: PTH123
                    file.write(text)
        except OSError as error:
            problems.append(f"{path}: cannot write {text!r}: {error.strerror}")
    return problems


def main() -> int:
    before: dict[str, str] = {}
    problems = []
    for pattern, text in json.load(sys.stdin).items():
        problems += write(pattern, text, before)
    print(json.dumps(before))
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
