"""Claim: the page about a run of 10,000 trials has at most 5 MB and is interactive in a browser in less than 2 s.

The page is opened in Chromium without a window. It is there when the report's text and tables are, and interactive when
its first plot, of all trials, is drawn as well and a click on a table's head has sorted it.

    python -m benchmarks.report_page [--quick]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from nas_edge.report import read_run, run_report, write_report
from tests.support.synthetic_run import make_run

TRIALS, QUICK_TRIALS = 10_000, 2_000
REPEATS = 5
LARGEST_MB, TARGET_S = 5.0, 2.0
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")

# Runs before the page does, and notes when what happened, in milliseconds from the start of the navigation.
WATCH = """
window.times = {};
new MutationObserver(() => {
  const report = document.getElementById("report"), plot = document.getElementById("plot-pareto");
  if (report && report.getAttribute("aria-busy") === "false") times.shown ??= performance.now();
  if (!plot || !plot.dataset.drawn || times.interactive) return;
  times.drawn = performance.now();
  document.querySelector("#table-verdicts thead button").click();
  times.interactive = performance.now();
}).observe(document, { subtree: true, childList: true, attributes: true });
"""


def main() -> None:
    """Makes a large run, writes its page and opens it several times."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_TRIALS} trials instead of {TRIALS}")
    trials = QUICK_TRIALS if parser.parse_args().quick else TRIALS
    with tempfile.TemporaryDirectory(prefix="report_page.") as name:
        run = make_run(Path(name) / "large", trials)
        page = write_report(run_report(read_run(run.folder)), run.path("report"))
        page_mb = page.stat().st_size / 1e6
        print(f"{trials} trials, a page of {page_mb:.2f} MB")
        opened = open_page(page, Path(name) / "profile")
    medians_s = {
        f"{what}_s": statistics.median(each[what] for each in opened) / 1e3
        for what in ("shown", "drawn", "interactive")
    }
    for what, time_s in medians_s.items():
        print(f"{what.removesuffix('_s')} after {time_s:.2f} s, the median of {REPEATS}")
    figures = {
        "benchmark": "report_page",
        "trials": trials,
        "page_mb": page_mb,
        **medians_s,
        "targets": {"page_mb": LARGEST_MB, "interactive_s": TARGET_S},
        "pass": page_mb <= LARGEST_MB and medians_s["interactive_s"] <= TARGET_S,
    }
    print(json.dumps(figures))


def open_page(page: Path, profile: Path) -> list[dict[str, float]]:
    """Opens the page several times; returns the times of `WATCH`, in milliseconds."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    browser, driver_path = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver_path is None:
        raise SystemExit("this benchmark needs the programs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    driver: Any = webdriver.Chrome(options=options, service=Service(driver_path))
    try:
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
        opened = []
        for _ in range(REPEATS):
            driver.get(page.as_uri())
            while "interactive" not in (times := driver.execute_script("return window.times")):
                time.sleep(0.05)
            opened.append(times)
    finally:
        driver.quit()
    return opened


if __name__ == "__main__":
    main()
