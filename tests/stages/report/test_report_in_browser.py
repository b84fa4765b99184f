"""The page in a real browser, opened from disk."""

import pytest
from PIL import Image

from browser import complaints, lightness, needs_browser, show
from browser import texts as _texts
from stages.report.run import run
from stages.report.study import Study
from storage.sources import Sources

pytestmark = needs_browser


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
        head_settings={"ltd": {"window": "<s>15"}},
        sources={"demo": Sources.of(images)},
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
    assert {"plain", hostile["set"], hostile["other set"]} <= set(_texts(page, "#main-table thead th"))
    assert f"demo ({hostile['note']})" in _texts(page, "#window-length thead th")
    assert hostile["generator"] in _texts(page, "#observation figcaption b")
    rows = _texts(page, "#undefined tbody tr")
    assert f"{hostile['other set']}allAPno real images" in rows
    assert f"plain, {hostile['set']}allTPR at 1 % FPR12 real images, fewer than the 500 that this rate needs" in rows
    assert _texts(page, "i, u, s, main script, svg svg") == []


def test_the_first_page_has_what_to_read_first_the_result_and_heads_by_benchmarks_and_the_rest_is_folded(page, hostile):
    shown = page.execute_script(
        """return [...document.querySelectorAll("main > *")].filter((part) => !part.matches("details"))
             .map((part) => part.className || part.id || part.tagName)"""
    )
    assert shown == ["caveats", "headline", "facts", "results", "H2"]
    caveats = _texts(page, ".caveats > ul > li")
    assert caveats[:2] == ["simulated fingerprints", hostile["note"]]
    assert "3 image(s) could not be read" in caveats[2]
    assert "linear, ltd: for some seed, training left the random initial window unchanged." in caveats[-1]
    assert _texts(page, ".headline")[0].startswith("linear has the highest mean AP")
    assert "2 of 3 sets" in _texts(page, "#headline tbody tr:first-child td")[0]
    assert page.execute_script("return document.querySelectorAll('details[open]').length") == 0
    assert page.execute_script("return document.documentElement.scrollHeight") < 2500
    page.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert page.execute_script("return document.querySelectorAll('details:not([open])').length") == 0


def test_every_plot_is_drawn_with_its_legend_and_axes(page):
    page.execute_script("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    drawn = page.execute_script(
        """return [...document.querySelectorAll("figure")].map((figure) => {
          const svg = figure.querySelector("svg.plot"), box = svg.getBoundingClientRect();
          const count = (selector) => svg.querySelectorAll(selector).length;
          const marks = [...svg.querySelectorAll("polyline.line:not(.threshold), polygon.band")];
          return {kind: svg.classList[1], width: box.width, height: box.height,
            section: svg.closest(".section").id, dots: count(".dots"), cells: count(".heat"), frames: count(".frame"),
            lines: count("polyline"), bands: count("polygon"),
            legend: figure.querySelectorAll(".legend li").length, ticks: count(".tick"),
            empty: marks.filter((mark) => mark.getBBox().width === 0 && !mark.matches("[width='0.0']")).length};
        })"""
    )
    lines = [plot for plot in drawn if plot["kind"] == "lines"]
    sections = ("sets", "robustness", "sweeps", "observation")
    of_sets, of_views, of_sweeps, observed = ([p for p in lines if p["section"] == name] for name in sections)
    # two sets with both classes: ROC and reliability with a diagonal, precision, a histogram a head with its threshold
    assert [plot["lines"] for plot in of_sets] == [4, 3, 4, 3, 3, 3] * 2
    assert [(plot["lines"], plot["bands"]) for plot in of_views] == [(3, 3)] * 2
    assert [plot["lines"] for plot in of_sweeps] == [2] * 4
    assert [(plot["lines"], plot["bands"]) for plot in observed if plot["lines"]] == [(2, 2)] * 4
    assert all(plot["legend"] == plot["lines"] + plot["dots"] for plot in lines)
    heats = [plot for plot in drawn if plot["kind"] == "heats"]
    assert [(plot["cells"], plot["frames"], plot["legend"]) for plot in heats] == [(13, 1, 3)] * 4
    assert [plot["dots"] for plot in lines if plot["dots"]] == [2] * 2
    assert all(plot["width"] > 200 and plot["height"] > 60 and plot["empty"] == 0 and plot["ticks"] for plot in drawn)


def test_tables_sort_by_keyboard_and_keep_the_undefined_last(page):
    from selenium.webdriver.common.keys import Keys

    page.execute_script("document.querySelector('#robustness').open = true")

    def column(number):
        read = "return [...document.querySelectorAll(arguments[0])].map((row) => row.cells[arguments[1]].dataset.value)"
        values = page.execute_script(read, "#robustness-table tbody tr", number)
        return [float(value) if value else None for value in values]

    header = next(n for n, text in enumerate(_texts(page, "#robustness-table thead th")) if text == "strength")
    defined = sorted(value for value in column(header) if value is not None)
    button = page.find_elements("css selector", "#robustness-table thead button")[header]
    undefined = [None] * (len(column(header)) - len(defined))
    assert undefined
    for expected, state in ((defined[::-1], "descending"), (defined, "ascending")):
        button.send_keys(Keys.ENTER)
        assert column(header) == [*expected, *undefined]
        assert button.find_element("xpath", "..").get_attribute("aria-sort") == state
    page.find_elements("css selector", "#robustness-table thead button")[0].click()
    names = _texts(page, "#robustness-table tbody th")
    assert names == sorted(names, key=str.casefold)
    assert len(page.find_elements("css selector", "[aria-sort]")) == 1


def test_it_can_be_read_with_a_screen_reader(page):
    assert page.execute_script("return [...document.querySelectorAll('table')].every((table) => table.caption)")
    assert page.execute_script("return [...document.querySelectorAll('th')].every((header) => header.scope)")
    described = """return [...document.querySelectorAll("svg.plot")].every((svg) =>
        svg.getAttribute("role") === "img" && ["aria-labelledby", "aria-describedby"].every((name) =>
        document.getElementById(svg.getAttribute(name)).textContent))"""
    assert page.execute_script(described)
    ids = page.execute_script("return [...document.querySelectorAll('[id]')].map((element) => element.id)")
    assert len(ids) == len(set(ids))
    targets = page.execute_script("return [...document.querySelectorAll('a')].map((a) => a.hash.slice(1))")
    assert set(targets) <= set(ids)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_screen_and_follows_the_colour_scheme(page, report, width, scheme):
    show(page, report, width=width, scheme=scheme)
    page.execute_script("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    paper = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert lightness(paper) > 240 if scheme == "light" else lightness(paper) < 40
