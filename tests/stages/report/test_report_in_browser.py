"""The page in a real browser, opened from disk."""

import pytest
from PIL import Image

from browser import complaints, headless_browser, needs_browser
from browser import texts as _texts
from stages.report.run import run
from stages.report.study import Study
from storage.sources import Sources

pytestmark = needs_browser


@pytest.fixture(scope="module")
def browser():
    with headless_browser() as driver:
        yield driver


@pytest.fixture(scope="module")
def report(hostile_study, hostile, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    images = tmp_path_factory.mktemp("images")
    for number in range(12):
        Image.new("RGB", (300, 200), (number * 20, 80, 80)).save(images / f"{hostile['path']}-{number}", "PNG")
    places = [f"{n},{start}" for n in (2, 3) for start in (0, 1, 2)]
    rows = [f"{place},demo,plain,10,0.8,0.9,{seed}" for place in places for seed in (1, 2)]
    sweep = images / "results.csv"
    sweep.write_text("\n".join(["n,start,corpus,set,images,accuracy,ap,seed", *rows, ""]))
    about = Study(
        name="demo <i>",
        notes=["simulated fingerprints", hostile["note"]],
        head_order=["ltd"],
        set_order=["plain"],
        versions={"<u>torch": "2"},
        head_cards={"ltd": {"window": "<s>15"}},
        images={"demo": Sources.of(images)},
        reproduce=["dvc repro # <b>"],
    )
    sweeps = {("window", hostile["note"]): sweep, ("window", "other"): sweep}
    files = {"score_files": hostile_study.scores, "profile_files": hostile_study.profiles, "sweep_files": sweeps}
    run(about, out=out, replicates=100, **files)
    return (out / "report.html").as_uri()


@pytest.fixture
def page(browser, report):
    """The page at desktop size; afterwards the console must be empty."""
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.set_window_size(1280, 900)
    browser.get(report)
    yield browser
    assert complaints(browser) == []


def test_names_are_shown_as_they_are_and_run_nothing(page, hostile):
    from selenium.webdriver.support.expected_conditions import alert_is_present

    assert not alert_is_present()(page)
    assert page.title == "demo <i>: detection of synthetic images"
    assert _texts(page, "#headline tbody th") == ["ltd", hostile["head"], "linear"]
    assert _texts(page, ".matrix tbody th")[:3] == ["plain", hostile["other set"], hostile["set"]]
    assert hostile["note"] in _texts(page, ".caveats li")
    assert f"demo ({hostile['note']})" in _texts(page, "#window-length thead th")
    assert hostile["generator"] in _texts(page, "#observation figcaption b")
    assert _texts(page, "i, u, s, main script, svg svg") == []


def test_the_caveats_come_first(page, hostile):
    assert _texts(page, "main > *:first-child li")[0] == "simulated fingerprints"
    caveats = _texts(page, ".caveats li")
    assert any("3 image(s) could not be read" in line for line in caveats)
    assert f"Head {hostile['head']}: for some seed" in caveats[-3]


def test_every_plot_is_drawn(page):
    drawn = page.execute_script(
        """return [...document.querySelectorAll("svg.plot")].map((svg) => {
          const box = svg.getBoundingClientRect();
          const marks = [...svg.querySelectorAll("rect.bar, polyline.line:not(.threshold), polygon.band")];
          return {kind: svg.classList[1], width: box.width, height: box.height,
            section: svg.closest("section").id, dots: svg.querySelectorAll(".dots").length,
            cells: svg.querySelectorAll(".heat").length, frames: svg.querySelectorAll(".frame").length,
            bars: svg.querySelectorAll("rect.bar").length, whiskers: svg.querySelectorAll(".whisker").length,
            lines: svg.querySelectorAll("polyline").length, bands: svg.querySelectorAll("polygon").length,
            empty: marks.filter((mark) => mark.getBBox().width === 0 && !mark.matches("[width='0.0']")).length};
        })"""
    )
    assert page.execute_script("return document.querySelectorAll('details:not([open])').length") == 0
    bars = [plot for plot in drawn if plot["kind"] == "bars"]
    lines = [plot for plot in drawn if plot["kind"] == "lines"]
    assert [plot["bars"] for plot in bars] == [9, 3, 9]
    assert [plot["whiskers"] for plot in bars] == [9, 0, 9]
    by_section = {
        name: [p for p in lines if p["section"] == name] for name in ("sets", "robustness", "sweeps", "observation")
    }
    # two sets with both classes: ROC and reliability with a diagonal, precision, a histogram a head with its threshold
    assert [plot["lines"] for plot in by_section["sets"]] == [4, 3, 4, 3, 3, 3] * 2
    assert [(plot["lines"], plot["bands"]) for plot in by_section["robustness"]] == [(3, 3)] * 2
    assert [plot["lines"] for plot in by_section["sweeps"]] == [2] * 4
    assert [(plot["lines"], plot["bands"]) for plot in by_section["observation"]] == [(2, 2)] * 4
    heats = [plot for plot in drawn if plot["kind"] == "heats"]
    assert [(plot["cells"], plot["frames"]) for plot in heats] == [(13, 1)] * 4
    assert [plot["dots"] for plot in drawn if plot["kind"] == "clouds"] == [2, 2]
    assert all(plot["width"] > 200 and plot["height"] > 60 and plot["empty"] == 0 for plot in drawn)


def test_the_surest_errors_are_pictured(page, hostile):
    groups = _texts(page, "#errors h3")
    assert groups[0].startswith("real images")
    pictures = page.execute_script(
        """return [...document.querySelectorAll('#errors img')].map(
             (img) => [img.alt, img.naturalWidth, img.src.slice(0, 23)])"""
    )
    assert pictures
    assert all(alt.startswith(hostile["path"]) for alt, _, _ in pictures)
    assert {(width, start) for _, width, start in pictures} == {(96, "data:image/jpeg;base64,")}
    # the synthetic images are not at hand
    assert "no picture at hand" in _texts(page, "#errors .missing")


def test_undefined_values_are_named_with_their_reason(page, hostile):
    rows = _texts(page, "#undefined tbody tr")
    assert f"{hostile['other set']}allAPno real images" in rows
    assert f"plain, {hostile['set']}allTPR at 1 % FPR12 real images, fewer than the 500 that this rate needs" in rows
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
