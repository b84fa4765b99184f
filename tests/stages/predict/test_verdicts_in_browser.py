"""The page of verdicts in a real browser, opened from disk."""

import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from browser import complaints, lightness, needs_browser, requests, show, texts
from stages.predict.page import open_page
from stages.predict.results import Prediction
from stages.predict.run import run
from stages.reporter import SilentReporter
from storage.errors import SettingError

pytestmark = needs_browser

EVIL = "a/</script><img src=x onerror=alert(1)>\u202e\x1b[31m.png"
TOTAL = 10_000


def made(number):
    if number == 1:
        return Prediction(path=EVIL, status="failed", error="truncated: <b>cut</b>")
    logit = (number % 100) / 10 - 5 if number != 7 else 9.0
    return Prediction(
        path=f"folder-{number % 3}/{number:05}.jpg",
        status="ok",
        verdict="unsure" if number % 100 == 50 else "synthetic" if logit > 0 else "real",
        probability=1 / (1 + np.exp(-logit)),
        logit=logit,
        spread=0.25,
        flipped="jpeg:85" if number % 100 == 50 else "",
        note="only 7 x 7 pixels, the backbone sees 224 x 224" if number == 7 else None,
        thumbnail=np.full((128, 128, 3), number % 256, np.uint8),
    )


@pytest.fixture(scope="module")
def address(detector, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "verdicts.html"
    with open_page(out, detector, "mild", Counter({".txt": 3})) as write:
        for number in range(TOTAL):
            write(made(number))
    return out.as_uri()


@pytest.fixture
def page(browser, address):
    requests(browser)
    show(browser, address)
    yield browser
    assert set(requests(browser)) == {address}
    assert complaints(browser) == []


def press(page, *keys):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    ActionChains(page).send_keys(*(getattr(Keys, key, key) for key in keys)).perform()


def paths(page):
    return texts(page, "#cards .path")


def focused(page):
    return page.execute_script("return document.activeElement.querySelector('.path')?.textContent")


def test_the_most_suspicious_come_first_and_failures_last_with_their_reason(page, detector):
    expected = sorted((made(number) for number in range(TOTAL) if number != 1), key=lambda one: -one.logit)
    assert paths(page) == [one.path for one in expected[:60]]
    assert texts(page, "#shown") == ["1 to 60 of 10,000 images"]
    first = page.find_element("css selector", "#cards li").text
    assert first.startswith(f"synthetic p = {expected[0].probability:.4f}\nspread 0.2500\nonly 7 x 7 pixels")
    assert page.execute_script("return document.querySelector('#cards img').naturalWidth") == 128
    page.execute_script("show(1e9)")
    last = page.find_element("css selector", "#cards li:last-child").text
    assert last.startswith(
        "not read\nfailed\ntruncated: <b>cut</b>\na/</script><img src=x onerror=alert(1)>\\u202e\\x1b[31m"
    )
    facts = texts(page, "header, .facts, main > details")
    assert detector.name("mild") in facts[0]
    assert f"random weights {detector.manifest.spec.weights[:12]}" in facts[0]
    assert "logit 0.0000" in facts[1]
    assert "3 .txt" in facts[2]
    assert "verdicts on other pictures mean nothing" in texts(page, ".caveats")[0]


def test_filters_by_verdict_folder_and_text_meet(page):
    assert texts(page, ".verdicts button")[1] == "unsure 100"
    press(page, "1", "3", "4")  # leaves the unsure
    assert texts(page, "#shown") == ["1 to 60 of 100 images"]
    assert {text.split()[0] for text in texts(page, "#cards b")} == {"unsure"}
    assert texts(page, "#cards .remark")[0] == "flips under jpeg:85"
    page.find_element("css selector", "#folder option[value=folder-1]").click()
    assert {path.split("/")[0] for path in paths(page)} == {"folder-1"}
    press(page, "/", "0", "0", "2", "5", "0", "ENTER")
    assert paths(page) == ["folder-1/00250.jpg"]


def test_it_is_used_from_the_keyboard_alone(page):
    every = paths(page)
    press(page, "ARROW_RIGHT", "ARROW_DOWN", "ARROW_LEFT")
    assert focused(page) == every[0]
    press(page, "PAGE_DOWN")
    assert texts(page, "#shown") == ["61 to 120 of 10,000 images"]
    press(page, "ARROW_UP")
    assert (focused(page), paths(page)) == (every[-1], every)


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_screen_in_both_colour_schemes(page, address, width, scheme):
    show(page, address, width=width, scheme=scheme)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    colours = page.execute_script(
        """const style = (name) => getComputedStyle(document.querySelector(name));
        const inks = ["#cards b", "#cards .path", "button.real", ".quiet"].map((name) => style(name).color);
        return [...inks, style("body").backgroundColor]"""
    )
    *inks, paper = map(lightness, colours)
    assert paper > 240 if scheme == "light" else paper < 40
    assert all(abs(ink - paper) > 80 for ink in inks)


def test_a_run_shows_the_whole_of_each_image(browser, study, detector, tmp_path):
    folder, out = tmp_path / "images", tmp_path / "verdicts.html"
    folder.mkdir()
    wide = np.zeros((300, 600, 3), np.uint8)
    wide[:, 300:] = 255
    Image.fromarray(wide).save(folder / "wide.png")
    shutil.copy(study.images("test") / "real" / "00000.png", folder)
    (folder / "bad.jpg").write_bytes(b"x")
    summary = run(
        detector=detector, paths=[str(folder)], stdin=None, stream=None, out=out, check="web", reporter=SilentReporter()
    )  # fmt: skip
    assert (summary.total, summary.failed) == (3, 1)
    show(browser, out.as_uri())
    assert len(paths(browser)) == 3
    corners = browser.execute_script(
        """const card = [...document.querySelectorAll("#cards li")].find((one) => one.textContent.includes("wide"));
        const canvas = document.createElement("canvas"); canvas.width = canvas.height = 128;
        const drawn = canvas.getContext("2d"); drawn.drawImage(card.querySelector("img"), 0, 0);
        return [[5, 64], [122, 64], [64, 5]].map(([x, y]) => drawn.getImageData(x, y, 1, 1).data[0])"""
    )
    assert corners == pytest.approx([0, 255, 118], abs=12)
    with pytest.raises(SettingError, match="name another file"):
        run(detector=detector, paths=[str(folder)], stdin=None, stream=None, out=out, reporter=SilentReporter())
