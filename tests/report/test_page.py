"""The page in a real browser."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from nas_edge.latency.answer import LatencyAnswer
from nas_edge.report import compare_report, read_run, run_report, to_page, write_file
from nas_edge.report.serve import LiveReport, make_server
from nas_edge.search.trials import Trial
from tests.support import chromium
from tests.support.chromium import DESKTOP, PHONE, Browser
from tests.support.finished_runs import finished_run, space_of, timed
from tests.support.synthetic_run import make_run

pytestmark = pytest.mark.needs("chromium")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium.open_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of the page about a finished run."""
    folder = tmp_path_factory.mktemp("runs") / "photos <img src=x onerror='window.hacked = 3'>"
    run = finished_run(folder)
    result = run.read_json("result.json")
    result["rows"][2]["name"] += " <b>bold</b>"
    run.write_json("result.json", result)
    return write_file(folder.parent / "page.html", to_page(run_report(read_run(run.folder)))).as_uri()


def test_every_plot_is_drawn_and_nothing_is_asked_of_any_network(browser: Browser, page: str) -> None:
    browser.open(page)
    browser.draw_all()
    browser.screenshot("desktop")
    plots = browser.script("return [...document.querySelectorAll('.plot')].map((plot) => plot.id)")
    assert set(plots) >= {"plot-pareto", "plot-delivered", "plot-confidence", "plot-one_decision", "plot-prediction"}
    for plot in plots:
        inked = browser.script(
            "const canvas = document.querySelector(`#${arguments[0]} canvas`);"
            "const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;"
            "let inked = 0; for (let i = 3; i < data.length; i += 4) inked += data[i] > 0; return inked;",
            plot,
        )
        assert inked > 2000, plot
    assert browser.console() == []
    assert browser.requests() == [page]


def test_what_a_run_folder_says_stays_text(browser: Browser, page: str) -> None:
    browser.open(page)
    browser.draw_all()
    assert browser.script("return window.hacked") is None
    assert browser.script("return document.querySelectorAll('img, main script, td b').length") == 0
    text = browser.script("return document.body.innerText")
    assert "</script><script>window.hacked = 1</script><img src=x" in text  # a failure's detail and the device
    assert "photos <img src=x onerror='window.hacked = 3'>" in text


def test_the_policy_stops_what_is_not_of_the_page(browser: Browser, page: str) -> None:
    browser.open(page)
    browser.script(
        "const script = document.createElement('script'); script.textContent = 'window.hacked = 4';"
        "document.body.append(script);"
        "document.body.append(Object.assign(new Image(), { src: 'https://nas-edge.invalid/x.png' }));"
        "fetch('https://nas-edge.invalid/x').catch(() => { window.refused = true; });"
    )
    browser.wait("return window.refused === true")
    assert browser.script("return window.hacked") is None
    refused = [message for message in browser.console() if "Content Security Policy" in message]
    for directive in ("script-src", "img-src", "connect-src"):
        assert any(directive in message for message in refused), directive


def test_hovering_tells_what_a_point_is(browser: Browser, page: str) -> None:
    browser.open(page)
    browser.draw_all()
    browser.resize(*DESKTOP)
    for plot, colour, expected in (
        ("pareto", "vermillion", "winner"),
        ("delivered", "green", "proxylessnas-mobile <b>bold</b>"),
    ):
        browser.move_mouse(*browser.coloured_spot(plot, colour))
        browser.wait("return document.getElementById('vg-tooltip-element').classList.contains('visible')")
        tip = browser.script("return document.getElementById('vg-tooltip-element').innerText")
        assert expected in tip
        assert "95% from, ms" in tip
        assert "ok" in tip
    browser.screenshot("hover")


def test_a_tap_beside_a_point_tells_what_it_is(browser: Browser, page: str) -> None:
    browser.open(page, PHONE)
    browser.draw_all()
    browser.resize(*PHONE)
    x, y = browser.coloured_spot("pareto", "vermillion")
    browser.tap(x - 12, y - 4)
    browser.wait("return document.getElementById('vg-tooltip-element').classList.contains('visible')")
    assert "winner" in browser.script("return document.getElementById('vg-tooltip-element').innerText")
    box = browser.script("return document.getElementById('vg-tooltip-element').getBoundingClientRect().toJSON()")
    assert box["left"] >= 0
    assert box["right"] <= PHONE[0]
    browser.screenshot("tap")


def test_a_decision_is_picked_from_a_list(browser: Browser, page: str) -> None:
    browser.open(page)
    browser.draw_all()
    pixels = "return document.querySelector('#plot-one_decision canvas').toDataURL()"
    before = browser.script(pixels)
    browser.script(
        "const list = document.querySelector('#plot-one_decision select'); list.value = 'block6.layer3.op';"
        "list.dispatchEvent(new Event('change', { bubbles: true })); list.dispatchEvent(new Event('input'));"
    )
    browser.wait(f"return (() => {{ {pixels} }})() !== arguments[0]", before)
    assert browser.console() == []


def test_tables_sort_by_mouse_and_by_keyboard(browser: Browser, page: str) -> None:
    browser.open(page)
    head = "document.querySelectorAll('#table-delivered thead button')[2]"
    column = "[...document.querySelectorAll('#table-delivered tbody tr')].map((row) => Number(row.cells[2].innerText))"
    assert browser.script(f"return {head}.innerText").strip() == "ms"
    before = browser.script(f"return {column}")
    browser.script(f"{head}.click()")
    assert browser.script(f"return {column}") == sorted(before, reverse=True)
    assert browser.script(f"return {head}.parentElement.getAttribute('aria-sort')") == "descending"
    browser.script(f"{head}.focus()")
    browser.press("Enter")
    assert browser.script(f"return {column}") == sorted(before)
    browser.press("Tab")
    assert browser.script("return document.activeElement.innerText").strip() == "95% from"


def test_long_tables_are_shown_in_parts(browser: Browser, page: str) -> None:
    browser.open(page)
    browser.script("document.querySelector('#trials details').open = true")
    count = "return document.querySelectorAll('#table-trials tbody tr').length"
    assert browser.script(count) == 20
    browser.script("document.querySelector('#trials button.more').click()")
    assert browser.script(count) == 151
    assert browser.script("return document.querySelector('#trials button.more').checkVisibility()") is False


def test_a_phone_needs_no_sideways_scrolling(browser: Browser, page: str) -> None:
    browser.open(page, PHONE)
    browser.script("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
    browser.draw_all()
    assert browser.script("return document.documentElement.scrollWidth") == PHONE[0]
    wide = browser.script(
        "return [...document.querySelectorAll('main *')].filter((e) => !e.closest('.scroll') && e.checkVisibility()"
        " && e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 90))"
    )
    assert wide == []
    browser.script("document.querySelectorAll('details').forEach((fold) => { fold.open = false; })")
    browser.resize(PHONE[0], browser.script("return document.documentElement.scrollHeight"))
    browser.screenshot("phone")


@pytest.mark.parametrize("dark", [False, True])
def test_all_text_stands_out_from_its_background(browser: Browser, page: str, dark: bool) -> None:
    """WCAG 2.2, 1.4.3: a contrast of 4.5 at least, for each piece of text; and 3 for marks in plots (1.4.11)."""
    browser.open(page, dark=dark)
    browser.script("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
    assert browser.script(_LOW_CONTRAST) == []
    marks = browser.script(
        _CONTRAST + "return ['blue', 'vermillion', 'purple', 'green'].map((name) =>"
        "contrast(parse(css(name)), parse(css('page'))))",
    )
    assert min(marks) >= 3
    browser.script("document.querySelectorAll('details').forEach((fold) => { fold.open = false; })")
    browser.draw_all()
    if dark:
        browser.screenshot("dark")
    assert browser.console() == []


def test_plots_follow_when_the_colours_change(browser: Browser, page: str) -> None:
    browser.open(page)
    browser.draw_all()
    browser.script("window.before = document.querySelector('.plot')")
    browser.driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )
    browser.wait("return window.before !== document.querySelector('.plot')")
    browser.draw_all()
    browser.coloured_spot("pareto", "vermillion")  # that of dark pages
    assert browser.console() == []


@pytest.mark.parametrize("trials", [0, 1, 2, 7])
def test_a_run_that_has_just_begun(browser: Browser, tmp_path: Path, trials: int) -> None:
    run = make_run(tmp_path / "run", trials, samples=10, seed=2)
    browser.open(write_file(tmp_path / "page.html", to_page(run_report(read_run(run.folder)))).as_uri())
    browser.draw_all()
    assert browser.console() == []


@pytest.mark.slow
def test_ten_thousand_trials(browser: Browser, tmp_path: Path) -> None:
    run = make_run(tmp_path / "large", 10_000, samples=10)
    text = to_page(run_report(read_run(run.folder)))
    assert len(text.encode()) < 5_000_000
    browser.open(write_file(tmp_path / "page.html", text).as_uri())
    browser.draw_all()
    browser.screenshot("ten-thousand-trials")
    assert "of 10,000 trials" in browser.script("return document.body.innerText")
    assert browser.console() == []


def test_several_runs(browser: Browser, tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, 120, samples=10, seed=seed) for seed, name in enumerate("abc")]
    runs.append(finished_run(tmp_path / "photos"))
    text = to_page(compare_report([read_run(run.folder) for run in runs]))
    address = write_file(tmp_path / "page.html", text).as_uri()
    for size, name in ((DESKTOP, "comparison"), (PHONE, "comparison-phone")):
        browser.open(address, size)
        browser.draw_all()
        browser.screenshot(name)
        assert browser.script("return document.documentElement.scrollWidth") == size[0]
        assert browser.console() == []
        assert browser.requests() == [address]


def test_a_live_page_follows_the_run_and_keeps_its_place(browser: Browser, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 100, samples=10)
    server = make_server(LiveReport(run.folder), 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/"
        browser.open(address)
        browser.draw_all()
        browser.resize(*DESKTOP)
        browser.script("document.querySelector('#trials details').open = true; scrollTo(0, 1500); window.same = true")
        browser.script("window.canvas = document.querySelector('#plot-pareto canvas')")
        architecture = space_of(run).canonical(space_of(run).sample(np.random.default_rng(0)))
        with closing(run.open_journal(pytest.fail)) as journal:
            trial = Trial(
                99_999, 99_999, architecture, 0.99, LatencyAnswer.measured(timed(0.5)), {"latency_ms": 0.5}, 0.99
            )
            journal.append(trial.to_json())
        browser.wait("return document.body.innerText.includes('of 101 trials')")
        assert browser.script("return scrollY") == 1500
        assert browser.script("return window.same") is True
        assert browser.script("return document.querySelector('#trials details').open") is True
        assert browser.script("return window.canvas === document.querySelector('#plot-pareto canvas')") is True
        assert "updating automatically" in browser.script("return document.getElementById('news').innerText")
        assert {request.partition(address)[2] for request in browser.requests()} == {"", "content"}
        browser.screenshot("live")
        assert browser.console() == []
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    browser.wait("return document.getElementById('news').innerText.includes('the server has stopped')")


_CONTRAST = """
const parse = (text) => {
  const hex = text.match(/^#(..)(..)(..)$/);
  return hex ? hex.slice(1).map((part) => parseInt(part, 16)) : text.match(/[\\d.]+/g).map(Number);
};
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const luminance = (rgb) => {
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const [r, g, b] = rgb.slice(0, 3).map((v) => linear(v / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (a, b) => {
  const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x);
  return (high + 0.05) / (low + 0.05);
};
"""
_LOW_CONTRAST = (
    _CONTRAST
    + """
const low = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!own || !element.checkVisibility() || element.matches("script, noscript, option")) continue;
  let behind = element, background = null;
  while (behind && !background) {
    const colour = parse(getComputedStyle(behind).backgroundColor);
    if (colour.length < 4 || colour[3] === 1) background = colour;
    behind = behind.parentElement;
  }
  const ratio = contrast(parse(getComputedStyle(element).color), background);
  if (ratio < 4.5) low.push(`${ratio.toFixed(2)} ${element.outerHTML.slice(0, 90)}`);
}
return low;
"""
)
