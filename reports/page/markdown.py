"""The page as Markdown, for a pull request or a mail."""

import html
import re
from collections.abc import Mapping

from reports.model import Cell, Figure, Page, Point, Row, Table


def render(page: Page, drawings: Mapping[str, str]) -> str:
    """GitHub-flavoured Markdown; ``drawings`` maps a figure's name to the SVG file beside the page."""
    blocks = [f"# {escape(page.title)}", escape(page.subtitle)]
    blocks += ["## Summary", "\n".join(map(_point, page.summary))]
    if len(page.sections) > 1:
        titles = (f"- [{escape(s.title)}](#{_anchor(s.title)})" for s in page.sections)
        blocks += ["## Contents", "\n".join(titles)]
    for section in page.sections:
        blocks.append(f"## {escape(section.title)}")
        blocks += [escape(text) for text in section.text]
        for part in section.parts:
            blocks += _table(part) if isinstance(part, Table) else _figure(part, drawings[part.name])
    if page.files:
        blocks += ["## Data", "\n".join(f"- `{name}`" for name in page.files)]
    return "\n\n".join(blocks) + "\n"


def escape(text: str) -> str:
    """Text on one line, escaped so that it is no markup and ends no table cell."""
    return re.sub(r"([\\`*_\[\]<>|#~$])", r"\\\1", " ".join(text.split()))


def _doubts(doubts: tuple[str, ...], separator: str) -> str:
    return "".join(f"{separator}⚠ {escape(doubt)}" for doubt in doubts)


def _anchor(title: str) -> str:
    """The name that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _point(point: Point) -> str:
    items = "".join(f"\n  - {escape(item)}" for item in point.shown)
    if point.more:
        more = "\n".join(f"  - {escape(item)}" for item in point.more)
        summary = f"<summary>{len(point.more)} more</summary>"
        items += f"\n\n  <details>{summary}\n\n{more}\n\n  </details>\n"
    return f"- **{escape(point.lead)}** {escape(point.text)}{_doubts(point.doubts, ' ')}{items}"


def _figure(figure: Figure, drawing: str) -> list[str]:
    # The alternative text would end at a bracket, which names of cases may have.
    text = re.sub(r"[\[\]\n]", " ", figure.description)
    blocks = [f"**{escape(figure.title)}**", f"![{text}]({drawing})", escape(figure.key)]
    if figure.doubts:
        blocks.append(_doubts(figure.doubts, "\n- ").strip())
    return _folded(figure.folded, blocks)


def _table(table: Table) -> list[str]:
    lines = [
        _line([escape(f"{c.title} ({c.unit})" if c.unit else c.title) for c in table.columns]),
        _line(["---:" if column.numeric else "---" for column in table.columns]),
    ]
    for row in table.rows:
        first, *others = [_cell(cell) for cell in row.cells]
        lines.append(_line([first + _trials(row), *others]))
        empty = [""] * (len(table.columns) - 1)
        lines += [_line([f"*{escape(note)}*", *empty]) for note in row.notes]
    body = "\n".join(lines)
    return _folded(table.folded, [body] if table.folded else [f"**{escape(table.caption)}**", body])


def _trials(row: Row) -> str:
    """A row's trials, folded within the cell."""
    if not row.trials:
        return ""
    return f"<details><summary>{row.trials_text}</summary>{'<br>'.join(map(escape, row.trials))}</details>"


def _folded(line: str, blocks: list[str]) -> list[str]:
    summary = f"<details><summary>{html.escape(line, quote=False)}</summary>"
    return [summary, *blocks, "</details>"] if line else blocks


def _cell(cell: Cell) -> str:
    text = f"{cell.text}\n({cell.detail})" if cell.detail else cell.text
    link = f"<br>[{escape(cell.file)}]({cell.file})" if cell.file else ""
    return "<br>".join(map(escape, filter(None, text.splitlines()))) + link + _doubts(cell.doubts, "<br>")


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
