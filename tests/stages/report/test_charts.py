"""Where marks lie: values, bands and windows as coordinates, and what is said of them in words and legends."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.report.chart import FLOOR, LEFT, RIGHT, TOP, Curve, common_scale, line_chart
from stages.report.observation import window_map

LABELS = {"x_label": "x", "y_label": "y"}


def marks(chart, kind):
    return [mark for mark in chart.marks if mark.attributes["class"].split()[0] == kind]


def points(mark):
    return np.array([list(map(float, point.split(","))) for point in mark.attributes["points"].split()])


def ticks(chart):
    """Texts and places of the ticks on the y axis, and on the x axis."""
    texts = [(mark.text, mark.attributes["x"], mark.attributes["y"]) for mark in marks(chart, "tick")]
    numbers = [text for text in texts if text[0] not in LABELS.values()]
    up = {text: y - 3.5 for text, x, y in numbers if x == LEFT - 6}
    return up, {text: x for text, x, _ in numbers if x != LEFT - 6}


def test_curves_and_bands_lie_inside_the_frame_with_low_values_below_high_ones():
    curves = [
        Curve("real", "real", [3, 4, 5], [0.9, 0.99, 1.0], [0.05] * 3),
        Curve("fake", "gan", [3, 4, 5], [0.7, 0.8, 0.9], [None] * 3),
    ]
    limits = (-1.0, 1.0)
    scale = common_scale(curves, limits)
    chart = line_chart("t", curves, **LABELS, x_scale=(3, 5), y_scale=scale, limits=limits, shaded=[(3.5, 4)])
    lines, bands = marks(chart, "line"), [mark for mark in marks(chart, "band") if mark.tag == "polygon"]
    for mark in (*lines, *bands):
        x, y = points(mark).T
        assert (x >= LEFT).all()
        assert (x <= RIGHT).all()
        assert (y >= TOP).all()
        assert (y <= FLOOR).all()
    assert all((np.diff(points(line)[:, 1]) < 0).all() for line in lines)  # upwards
    assert points(bands[0])[0, 1] < points(lines[0])[0, 1] < points(bands[0])[-1, 1]  # upper edge first
    (window,) = (mark.attributes for mark in marks(chart, "band") if mark.tag == "rect")
    assert (window["x"], window["width"]) == (LEFT + (RIGHT - LEFT) / 4, (RIGHT - LEFT) / 4)
    assert "gan: from 0.7 to 0.9, most at 5." in chart.words
    assert chart.legend == [("line real", "real"), ("line fake", "gan")]


@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e4))
def test_ticks_are_few_and_inside(low, span):
    curve = Curve("fake", "gan", [0, 1], [low, low + span])
    grid = marks(line_chart("t", [curve], **LABELS, y_scale=(low, low + span)), "grid")
    places = {line.attributes["y1"] for line in grid}
    assert 2 <= len(grid) == len(places) <= 8
    assert all(TOP <= at <= FLOOR for at in places)


def test_windows_lie_at_their_start_and_length_and_have_the_colour_of_who_moves_more():
    rows = [{"start": start, "blocks": n, "auc": auc} for start, n, auc in ((3, 2, 0.9), (4, 2, 0.4), (3, 5, 0.5))]
    chart = window_map("t", rows, "auc", [(4, 2, "ltd, seed 1"), (4, 2, "ltd, seed 2")])
    squares = [mark.attributes for mark in marks(chart, "heat")]
    kinds = [("heat more", 0.8), ("heat less", 0.2), ("heat more", 0.0)]
    assert [(square["class"], square["fill-opacity"]) for square in squares] == kinds
    first, second, longer = squares
    assert (second["x"] - first["x"], second["y"] - first["y"]) == (first["width"], 0)
    up, along = ticks(chart)
    assert (longer["x"], longer["y"] - first["y"]) == (first["x"], up["5"] - up["2"])
    assert longer["y"] > first["y"]
    (frame,) = marks(chart, "frame")
    assert (frame.attributes["x"], frame.attributes["y"]) == (second["x"], second["y"])
    assert frame.text == "read by ltd, seed 1, ltd, seed 2"
    assert chart.words == "Separates best: blocks 3 to 4, AUC 0.900."
    assert [along[str(3 + at)] for at in (0, 1)] == [LEFT + (at + 0.5) * first["width"] for at in (0, 1)]


def test_clouds_are_dots_on_the_axes_of_lines():
    clouds = [Curve("fake", "f", [0.0, 1.0], [0.0, 2.0], dots=True), Curve("real", "r", [2.0], [4.0], dots=True)]
    chart = line_chart("t", clouds, **LABELS, x_scale=(0, 2), y_scale=(0, 4), limits=(-np.inf, np.inf))
    fake, real = (mark.attributes["d"] for mark in marks(chart, "dots"))
    assert fake == f"M{LEFT} {FLOOR}h0M{(LEFT + RIGHT) / 2:g} {(FLOOR + TOP) / 2:g}h0"
    assert real == f"M{RIGHT} {TOP}h0"
    assert chart.legend == [("dots fake", "f"), ("dots real", "r")]
