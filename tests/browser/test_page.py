"""The report in a real browser, as a desktop and a phone show it, light and dark, and on paper.

Chromium is the system's; what it finds fault with is told by axe-core, which ships in its Python package.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from paths import GOLDEN
from playwright.sync_api import Browser, Page, sync_playwright

from reports.page.html import write_comparison, write_report

EXAMPLE = GOLDEN / "reports" / "results.jsonl"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTHS = {"desktop": 1280, "phone": 390}
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
AUDITED = (("desktop", "dark"), ("phone", "light"))
OPEN_ALL = "document.querySelectorAll('details').forEach(each => each.open = true)"
THIN = "document.querySelectorAll('figure svg g, tbody tr:nth-child(n+9)').forEach(each => each.remove())"
"""An audit takes a millisecond for each element: a drawing is one image to a reader, and rows are alike."""
UNTOLD = """() => [...document.querySelectorAll('figure')].filter(figure => {
  const shown = [...figure.querySelectorAll('svg')].filter(svg => svg.getClientRects().length);
  return shown.length !== 1 || shown[0].getAttribute('role') !== 'img' ||
    shown[0].getAttribute('aria-labelledby').split(' ')
      .some(id => (document.getElementById(id)?.textContent ?? '').trim().length < 5);
}).map(figure => figure.id)"""
TOO_WIDE = """() => [...document.querySelectorAll('body *')].filter(each =>
  !each.closest('.scroll, .pan, .spoken, .skip, svg') &&
  each.getBoundingClientRect().right > document.documentElement.clientWidth + 1
).map(each => each.tagName + ' ' + each.className + ' ' + each.textContent.slice(0, 40))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        # The sandbox cannot be set up by root; what is shown is our own page, and it is offline.
        running = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(EXAMPLE, tmp_path_factory.mktemp("report"))[0]


def faults(page: Page, path: Path, audit: bool = True) -> list[str]:
    """What a reader of the page would stumble over; every fold is open while it is looked at."""
    found: list[str] = []
    page.on("console", lambda message: found.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: found.append(f"error: {error}"))
    page.on("requestfailed", lambda request: found.append(f"request failed: {request.url}"))
    page.on("request", lambda request: _leaves(request.url, path) and found.append(f"asks for {request.url}"))
    page.goto(path.as_uri(), wait_until="load")
    page.evaluate(OPEN_ALL)
    over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    if over > 0:
        found.append(f"{over} pixels too wide: {page.evaluate(TOO_WIDE)[:3]}")
    found += [f"figure without words: {name}" for name in page.evaluate(UNTOLD)]
    if not audit:
        return found
    page.evaluate(THIN)
    for rule in Axe().run(page, options={"resultTypes": ["violations"], **RULES}).response["violations"]:
        where = [node["html"][:120] for node in rule["nodes"][:3]]
        found.append(f"{rule['id']}: {rule['help']}, {len(rule['nodes'])} times: {where}")
    return found


def _leaves(url: str, path: Path) -> bool:
    return url != path.as_uri() and not url.startswith("data:")


def opened(browser: Browser, width: int, scheme: str) -> Page:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    return context.new_page()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_page_is_without_fault(browser: Browser, report: Path, width: str, scheme: str) -> None:
    page = opened(browser, WIDTHS[width], scheme)
    # Each width and each palette is audited once: that takes seconds.
    assert faults(page, report, audit=(width, scheme) in AUDITED) == []
    red, *_ = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (red < 128) == (scheme == "dark")
    page.context.close()


def test_page_of_two_runs_is_without_fault(browser: Browser, tmp_path: Path) -> None:
    path = write_comparison(EXAMPLE, EXAMPLE, tmp_path)[0]
    page = opened(browser, WIDTHS["phone"], "dark")
    assert faults(page, path) == []
    page.context.close()


@pytest.mark.parametrize(
    ("flaw", "told"),
    [
        ('<img alt="" src="https://198.51.100.1/x.png">', "asks for https://198.51.100.1"),
        ('<img alt="" src="missing.png">', "request failed"),
        ("<script>nothing()</script>", "error: nothing is not defined"),
        ("<script>console.error('oh')</script>", "console: oh"),
        ('<div style="width:2000px">wide</div>', "pixels too wide"),
        ('<p style="color:#aaa;background:#fff">pale</p>', "color-contrast"),
        ('<figure id="mute"><svg role="img" aria-labelledby="x"></svg></figure>', "without words: mute"),
    ],
)
def test_faults_are_found(browser: Browser, tmp_path: Path, flaw: str, told: str) -> None:
    path = tmp_path / "page.html"
    path.write_text(f'<!doctype html><html lang="en"><title>x</title><main><h1>x</h1>{flaw}</main></html>')
    page = opened(browser, WIDTHS["phone"], "light")
    assert told in "\n".join(faults(page, path))
    page.context.close()


def test_paper_shows_what_is_folded(browser: Browser, report: Path) -> None:
    page = opened(browser, WIDTHS["desktop"], "dark")
    page.goto(report.as_uri())
    page.emulate_media(media="print", color_scheme="dark")
    hidden = page.evaluate(
        "[...document.querySelectorAll('details:not(.from) table, details:not(.from) figure')]"
        ".filter(each => !each.getClientRects().length).map(each => each.id)"
    )
    assert hidden == []
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.pdf(format="A4")[:5] == b"%PDF-"
    page.context.close()
