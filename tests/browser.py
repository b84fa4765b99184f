"""A real browser for the pages that the project writes, and what it says of them."""

import json
import shutil
from contextlib import contextmanager

import pytest

webdriver = pytest.importorskip("selenium.webdriver")

_PROGRAMS = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
_MISSING = [name for name, path in _PROGRAMS.items() if path is None]
needs_browser = pytest.mark.skipif(bool(_MISSING), reason=f"not on the PATH: {', '.join(_MISSING)}")


@contextmanager
def headless_browser():
    """A Chromium that keeps its console and the requests it makes."""
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = _PROGRAMS["chromium"]
    for name in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-background-networking", "no-first-run", "disable-sync",
        "disable-component-update", "disable-dev-shm-usage",
    ):  # fmt: skip
        options.add_argument(f"--{name}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(executable_path=_PROGRAMS["chromedriver"]))
    try:
        yield driver
    finally:
        driver.quit()


def complaints(driver):
    """What the console says since it was last asked that is a warning or worse; not of the canvas that tests read."""
    said = [entry for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    return [entry for entry in said if "will-read-frequently" not in entry["message"]]


def requests(driver):
    """The addresses that the page asked for since this was last called, data within the page left out."""
    events = (json.loads(entry["message"])["message"] for entry in driver.get_log("performance"))
    asked = (event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent")
    return [url for url in asked if not url.startswith("data:")]


def show(driver, address, *, width=1280, height=900, scheme="light"):
    """Open a page on a screen of this size and colour scheme."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "screen", "features": [feature]})
    driver.get(address)


def texts(driver, selector):
    """The text of all elements that a CSS selector finds."""
    return driver.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((element) => element.textContent.trim())", selector
    )


def lightness(colour):
    """How light a colour as ``getComputedStyle`` gives it is, 0 to 255."""
    return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(", "))) / 3
