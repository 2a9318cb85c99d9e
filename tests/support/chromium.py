"""A real browser, and what the tests ask it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
SCREENSHOTS = Path(__file__).parents[2] / "build" / "report-screenshots"
DESKTOP, PHONE = (1280, 900), (390, 844)

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Browser:
    """Chromium without a window, driven over its own protocol."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def script(self, text: str, *arguments: Any) -> Any:
        """What JavaScript returns. The driver runs it, whatever the page's policy says."""
        return self.driver.execute_script(text, *arguments)

    def open(self, address: str, size: tuple[int, int] = DESKTOP, dark: bool = False) -> None:
        """Opens a page and waits until it shows its report."""
        self.driver.get("about:blank")
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)  # of what was open before
        self.resize(*size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get(address)
        self.wait("return document.getElementById('report').getAttribute('aria-busy') === 'false'")

    def resize(self, width: int, height: int) -> None:
        """Makes the window another size."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def wait(self, condition: str, *arguments: Any) -> None:
        """Waits until a script returns true."""
        end = time.monotonic() + 60
        while not self.script(condition, *arguments):
            assert time.monotonic() < end, f"still not true: {condition}"
            time.sleep(0.05)

    def draw_all(self) -> None:
        """Makes the window as high as the page, so that every plot is drawn, and waits for them."""
        width = self.script("return innerWidth")
        self.resize(width, self.script("return document.documentElement.scrollHeight + 200"))
        self.wait("return [...document.querySelectorAll('.plot')].every((plot) => plot.dataset.drawn)")
        self.resize(width, self.script("return document.documentElement.scrollHeight"))

    def screenshot(self, name: str) -> None:
        """Keeps what is seen, for people to look at."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        assert self.driver.save_screenshot(str(SCREENSHOTS / f"{name}.png"))

    def console(self) -> list[str]:
        """Warnings and errors of the page."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses that the page asked for."""
        events = (json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance"))
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

    def coloured_spot(self, plot: str, colour: str) -> tuple[float, float]:
        """The place in the window, in pixels, around which a plot has most of a colour, given as a CSS variable."""
        found = self.script(_FIND_COLOUR, plot, colour)
        assert found is not None, f"nothing in {plot} has the colour {colour}"
        return found["x"], found["y"]

    def move_mouse(self, x: float, y: float) -> None:
        """Moves the mouse to a place in the window."""
        for dx in (3, 0):
            event = {"type": "mouseMoved", "x": x + dx, "y": y}
            self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", event)

    def tap(self, x: float, y: float) -> None:
        """Taps on a place in the window."""
        place = {"x": round(x), "y": round(y), "gestureSourceType": "touch"}
        self.driver.execute_cdp_cmd("Input.synthesizeTapGesture", place)

    def press(self, key: str) -> None:
        """Presses a key."""
        for kind in ("keyDown", "keyUp"):
            event = {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": {"Enter": 13, "Tab": 9}[key]}
            if kind == "keyDown" and key == "Enter":
                event["text"] = "\r"
            self.driver.execute_cdp_cmd("Input.dispatchKeyEvent", event)


@contextmanager
def open_browser(profile: Path) -> Iterator[Browser]:
    """Starts Chromium with a new profile."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield Browser(driver)
    finally:
        driver.quit()


_FIND_COLOUR = """
const [plot, name] = arguments;
const hex = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const wanted = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
const canvas = document.querySelector(`#plot-${plot} canvas`);
canvas.scrollIntoView({ block: "center", behavior: "instant" });
const { width, height } = canvas;
const pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
const is = (x, y) => wanted.every((value, i) => Math.abs(pixels[4 * (y * width + x) + i] - value) < 3);
let best = null, most = 0;
// The legend above the plot has the colour, too.
for (let y = 60; y < height - 4; y += 1) {
  for (let x = 4; x < width - 4; x += 1) {
    if (!is(x, y)) continue;
    let count = 0;
    for (let v = -4; v <= 4; v += 1) for (let u = -4; u <= 4; u += 1) count += is(x + u, y + v);
    if (count > most) [most, best] = [count, { x, y }];
  }
}
if (!best) return null;
const box = canvas.getBoundingClientRect();
return { x: box.left + best.x * box.width / width, y: box.top + best.y * box.height / height };
"""
