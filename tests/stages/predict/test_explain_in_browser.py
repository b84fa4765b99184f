"""The page about one image in a real browser, opened from disk: what a person sees is what the Python API says."""

import shutil

import pytest

from browser import complaints, lightness, needs_browser, requests, show, texts
from stages.predict.explain import run

pytestmark = needs_browser

LONG = "/".join(["a-folder-with-a-long-name-and-no-blank-in-it" * 3] * 3)
# where a figure's curves lie on its own axes: the ticks say which value is where
READ_CURVES = """
return [...document.querySelectorAll("svg.plot")].map((svg) => {
  const number = (element, name) => parseFloat(element.getAttribute(name));
  const ticks = [...svg.querySelectorAll("text.tick[text-anchor=end]")];
  const [low, high] = [ticks[0], ticks[ticks.length - 1]];
  const scale = (parseFloat(high.textContent) - parseFloat(low.textContent)) / (number(high, "y") - number(low, "y"));
  const value = (y) => parseFloat(low.textContent) + (y + 3.5 - number(low, "y")) * scale;
  const curve = (kind) => [...svg.querySelectorAll("polyline." + kind)].map(
    (line) => line.getAttribute("points").split(" ").map((point) => value(parseFloat(point.split(",")[1]))));
  return {image: curve("image"), real: curve("real"), fake: curve("fake")};
})"""


@pytest.fixture(scope="module")
def explained(study, detector, tmp_path_factory):
    """The explanation of an image with an unpleasant path, and the address of its page."""
    folder = tmp_path_factory.mktemp("explain")
    image = folder / LONG / "<b>photo & co.png"
    image.parent.mkdir(parents=True)
    shutil.copy(study.images("test") / "fake" / "nearest" / "00001.png", image)
    page = folder / "page.html"
    return run(detector=detector, image=image, out=page), page.as_uri()


@pytest.fixture
def page(browser, explained):
    """The page on a desktop's screen; afterwards it must have asked for nothing, and the console be empty."""
    requests(browser)
    show(browser, explained[1])
    yield browser
    assert set(requests(browser)) == {explained[1]}
    assert complaints(browser) == []


def test_the_facts_are_those_of_the_prediction(page, explained, detector):
    prediction = explained[0].prediction
    assert page.title == f"<b>photo & co.png: {prediction.verdict}"
    assert texts(page, "h1") == ["<b>photo & co.png"]
    assert texts(page, "#path") == [prediction.path]
    shown = page.execute_script(
        "return [...document.querySelectorAll('.facts dd')].map((fact) => fact.firstChild.textContent)"
    )
    ((first, last),) = explained[0].windows
    numbers = [f"{prediction.probability:.4f}", f"{prediction.logit:.4f}"]
    assert shown == [prediction.verdict, *numbers, f"{first} to {last}"]
    assert f"spread {prediction.spread:.4f}" in texts(page, ".facts small")[1]
    assert detector.manifest.calibration.guarantee in texts(page, "main > p")[0]


def test_the_curves_are_those_of_the_image_and_of_the_bands(page, explained, detector):
    explanation, bands = explained[0], detector.manifest.bands
    for curves, name in zip(page.execute_script(READ_CURVES), ("cosine", "l2"), strict=True):
        expected = {
            "image": getattr(explanation, name),
            "real": getattr(bands.real, name).mean,
            "fake": getattr(bands.synthetic, name).mean,
        }
        for kind, values in expected.items():
            (drawn,) = curves[kind]
            assert drawn == pytest.approx(list(values), abs=(max(values) - min(values)) / 200)


def test_every_figure_is_visible_and_has_a_legend(page, explained):
    drawn = page.execute_script(
        """return [...document.querySelectorAll("svg.plot")].map((svg) => {
          const box = svg.getBoundingClientRect();
          const marks = [...svg.querySelectorAll("rect, polyline, polygon:not(.image)")];
          return {width: box.width, height: box.height, kinds: marks.map((mark) => mark.classList.value),
            seen: marks.every((mark) => mark.getBBox().width > 10 && mark.getBBox().height > 10)};
        })"""
    )
    assert len(drawn) == 2
    for plot in drawn:
        assert plot["width"] > 200
        assert plot["height"] > 100
        assert plot["seen"]
        assert plot["kinds"] == ["band window", "band real", "band fake", "line real", "line fake", "line image"]
    assert texts(page, ".legend li") == ["this image", "40 real", "40 synthetic", "blocks that decide"]
    seen = page.execute_script("return [...document.images].map((image) => [image.naturalWidth, image.width])")
    # the picture, and the attention of each block that decides: a pixel a patch, drawn larger
    assert seen == [[224, 224], *[[14, 84]] * 5]


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_screen_and_can_be_read_in_both_colour_schemes(page, explained, width, scheme):
    show(page, explained[1], width=width, scheme=scheme)
    page.execute_script("document.querySelectorAll('details').forEach((part) => { part.open = true })")
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    paper = lightness(page.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert paper > 240 if scheme == "light" else paper < 40
    inks = page.execute_script(
        """const ink = (selector, name) => getComputedStyle(document.querySelector(selector))[name];
        return [ink("h1", "color"), ink("dd", "color"), ink("pre", "color"), ink("td", "color"), ink(".tick", "fill"),
          ink(".line.image", "stroke"), ink(".line.real", "stroke"), ink(".line.fake", "stroke"),
          ...["image", "real", "fake"].map((kind) => ink(".key." + kind, "borderTopColor"))]"""
    )
    assert all(abs(lightness(colour) - paper) > 80 for colour in inks)
    assert inks[5:8] == inks[8:11]
    assert len(set(inks[5:8])) == 3
