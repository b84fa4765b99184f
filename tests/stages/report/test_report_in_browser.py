"""The page in a real browser, opened from disk."""

import shutil

import pytest

from stages.report.run import run

webdriver = pytest.importorskip("selenium.webdriver")

PROGRAMS = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
MISSING = [name for name, path in PROGRAMS.items() if path is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not on the PATH: {', '.join(MISSING)}")


@pytest.fixture(scope="module")
def browser():
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = PROGRAMS["chromium"]
    for name in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-background-networking", "no-first-run", "disable-sync",
        "disable-component-update",
    ):  # fmt: skip
        options.add_argument(f"--{name}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(executable_path=PROGRAMS["chromedriver"]))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def report(hostile_study, hostile, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    run(
        study="demo <i>",
        score_files=hostile_study.scores,
        profile_files=hostile_study.profiles,
        out=out,
        notes=["simulated fingerprints", hostile["note"]],
        head_order=["ltd"],
        set_order=["plain"],
        versions={"<u>torch": "2"},
        head_cards={"ltd": {"window": "<s>15"}},
    )
    return (out / "report.html").as_uri()


@pytest.fixture
def page(browser, report):
    """The page at desktop size; afterwards the console must be empty."""
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.set_window_size(1280, 900)
    browser.get(report)
    yield browser
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


def _texts(page, selector):
    return page.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((element) => element.textContent.trim())", selector
    )


def test_names_are_shown_as_they_are_and_run_nothing(page, hostile):
    from selenium.webdriver.support.expected_conditions import alert_is_present

    assert not alert_is_present()(page)
    assert page.title == "demo <i>: detection of synthetic images"
    assert _texts(page, "#headline tbody th") == ["ltd", hostile["head"], "linear"]
    assert _texts(page, ".matrix tbody th")[:3] == ["plain", hostile["other set"], hostile["set"]]
    assert hostile["note"] in _texts(page, ".caveats li")
    assert hostile["generator"] in _texts(page, "#observation figcaption b")
    assert _texts(page, "img, i, u, s, main script, svg svg") == []


def test_the_caveats_come_first(page):
    assert _texts(page, "main > *:first-child li")[0] == "simulated fingerprints"
    assert "3 image(s) could not be read" in _texts(page, ".caveats li")[-1]


def test_every_plot_is_drawn(page):
    drawn = page.execute_script(
        """return [...document.querySelectorAll("svg.plot")].map((svg) => {
          const box = svg.getBoundingClientRect();
          const marks = [...svg.querySelectorAll("rect.bar, polyline.line, polygon.band")];
          const colour = getComputedStyle(svg.querySelector("text")).fill;
          return {kind: svg.classList[1], width: box.width, height: box.height, colour,
            bars: svg.querySelectorAll("rect.bar").length, whiskers: svg.querySelectorAll(".whisker").length,
            lines: svg.querySelectorAll("polyline").length, bands: svg.querySelectorAll("polygon").length,
            empty: marks.filter((mark) => mark.getBBox().width === 0 && !mark.matches("[width='0.0']")).length};
        })"""
    )
    bars = [plot for plot in drawn if plot["kind"] == "bars"]
    lines = [plot for plot in drawn if plot["kind"] == "lines"]
    assert [plot["bars"] for plot in bars] == [9, 3, 9]
    assert [plot["whiskers"] for plot in bars] == [9, 3, 9]
    assert [(plot["lines"], plot["bands"]) for plot in lines] == [(2, 2)] * 4
    assert all(plot["width"] > 200 and plot["height"] > 100 and plot["empty"] == 0 for plot in drawn)


def test_undefined_values_are_named_with_their_reason(page, hostile):
    rows = _texts(page, "#undefined tbody tr")
    assert len(rows) == 9
    assert all(hostile["other set"] in row and "no real images" in row for row in rows)
    assert "2 of 3" in _texts(page, ".matrix tfoot td")[0]


def test_tables_sort_by_keyboard_and_keep_the_undefined_last(page):
    from selenium.webdriver.common.keys import Keys

    def column():
        rows = "#per-set tbody tr"
        read = "return [...document.querySelectorAll(arguments[0])].map((row) => row.cells[2].dataset.value)"
        return [float(value) if value else None for value in page.execute_script(read, rows)]

    before = column()
    button = page.find_elements("css selector", "#per-set thead button")[2]
    defined = sorted(value for value in before if value is not None)
    for expected, state in ((defined[::-1], "descending"), (defined, "ascending")):
        button.send_keys(Keys.ENTER)
        assert column() == [*expected, None, None, None]
        assert button.find_element("xpath", "..").get_attribute("aria-sort") == state
    names = page.find_elements("css selector", "#per-set thead button")[1]
    names.click()
    assert _texts(page, "#per-set td.text") == sorted(_texts(page, "#per-set td.text"), key=str.casefold)
    assert len(page.find_elements("css selector", "[aria-sort]")) == 1


def test_it_can_be_read_with_a_screen_reader(page):
    assert page.execute_script("return [...document.querySelectorAll('table')].every((table) => table.caption)")
    assert page.execute_script("return [...document.querySelectorAll('th')].every((header) => header.scope)")
    described = """return [...document.querySelectorAll("svg.plot")].every((svg) =>
        svg.getAttribute("role") === "img" && svg.getAttribute("aria-labelledby").split(" ").every((id) =>
        svg.contains(document.getElementById(id)) && document.getElementById(id).textContent))"""
    assert page.execute_script(described)
    ids = page.execute_script("return [...document.querySelectorAll('[id]')].map((element) => element.id)")
    assert len(ids) == len(set(ids))
    targets = page.execute_script("return [...document.querySelectorAll('a')].map((a) => a.hash.slice(1))")
    assert set(targets) <= set(ids)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_screen_and_follows_the_colour_scheme(page, width, scheme):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "screen", "features": [feature]})
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    paper = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    lightness = sum(map(int, paper.removeprefix("rgb(").removesuffix(")").split(", "))) / 3
    assert lightness > 240 if scheme == "light" else lightness < 40
