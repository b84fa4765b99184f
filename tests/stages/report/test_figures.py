"""Where marks lie: values, bands and windows as coordinates, and what is said of them in words and legends."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.measure.frame import Mean
from stages.report.chart import UNIT
from stages.report.figures import Curve, band_chart, bar_chart, cloud_chart, common_scale, curve_chart, heat_map

ANY = (0.0, float("inf"))


def points(text):
    return np.array([list(map(float, point.split(","))) for point in text.split()])


def bands(curves, limits=UNIT, scale=None, **names):
    return band_chart("t", curves, limits=limits, scale=scale or common_scale(curves, limits), y_label="y", **names)


def test_bars_are_as_long_as_their_values_and_whiskers_stay_on_the_scale():
    values = [
        ("ap", "AP", Mean(1.0, 0.1, 2, 2), (0.9, 1.0)),
        ("x", "x", Mean(0.5, 0.1, 2, 2), (0.4, 0.6)),
        ("y", "y", Mean(0.0, None, 1, 1), None),
        ("z", "z", Mean(None, None, 0, 2), None),
    ]
    chart = bar_chart("t", [("ltd", values)])
    full, half, none, undefined = chart.marks[0].bars
    assert half.width == pytest.approx(full.width / 2)
    assert (none.width, none.whisker, undefined.width) == (0, None, None)
    assert full.whisker[1] == chart.x_ticks[-1].at
    assert [tick.text for tick in chart.x_ticks] == ["0", "25", "50", "75", "100"]
    assert sum(half.whisker) / 2 == pytest.approx(chart.left + half.width, abs=0.01)
    assert chart.words == "ltd: AP 100.00 ±10.00, x 50.00 ±10.00, y 0.00, z undefined."
    assert chart.legend[0] == ("ap", "AP")


def test_curves_and_bands_lie_inside_the_frame_with_low_values_below_high_ones():
    curves = [
        Curve("real", "real", [3, 4, 5], [0.9, 0.99, 1.0], [0.05] * 3),
        Curve("fake", "gan", [3, 4, 5], [0.7, 0.8, 0.9], [None] * 3),
    ]
    chart = bands(curves, limits=(-1.0, 1.0))
    for line in chart.marks:
        x, y = points(f"{line.points} {line.band}").T
        assert (x >= chart.left).all()
        assert (x <= chart.right).all()
        assert (y >= chart.top).all()
        assert (y <= chart.floor).all()
        assert (np.diff(points(line.points)[:, 1]) < 0).all()  # upwards
    band, line = points(chart.marks[0].band), points(chart.marks[0].points)
    assert band[0, 1] < line[0, 1] < band[-1, 1]  # upper edge first
    assert [tick.text for tick in chart.x_ticks] == ["3", "4", "5"]
    assert "gan: from 0.7 to 0.9, most at transition 5." in chart.words
    assert chart.legend == [("line real", "real"), ("line fake", "gan")]


def test_bands_are_cut_at_what_the_quantity_can_be_and_shares_are_in_percent():
    curve = Curve("real", "real", [0, 1], [0.02, 0.98], [0.05, 0.05])
    assert common_scale([curve], UNIT) == UNIT
    chart = bands([curve], scale=(-1.0, 2.0), x_names=["clean", "70"])
    zero, one = (tick.at for tick in chart.y_ticks if tick.text in {"0", "100"})
    assert points(chart.marks[0].band)[1::2, 1].tolist() == [one, zero]
    assert chart.words == "real: from 2 to 98 %, most at 70."
    assert [tick.text for tick in chart.x_ticks] == ["clean", "70"]


def test_equal_values_still_have_a_scale():
    curves = [Curve("real", "real", [0, 1], [0.0, 0.0], [0.0, 0.0])]
    low, high = common_scale(curves, ANY)
    assert low <= 0 < high
    assert bands(curves, limits=ANY).y_ticks[0].text == "0"


def test_windows_lie_at_their_start_and_length_and_have_the_colour_of_who_moves_more():
    chart = heat_map("t", [(3, 2, 0.9), (4, 2, 0.4), (3, 5, 0.5)], [(4, 2, "ltd, seed 1"), (4, 2, "ltd, seed 2")])
    first, second, longer, frame = chart.marks
    kinds = [("heat more", 0.8), ("heat less", 0.2), ("heat more", 0.0), ("frame", 1.0)]
    assert [(square.kind, square.strength) for square in chart.marks] == kinds
    assert (second.x - first.x, second.y - first.y) == (first.width, 0)
    assert longer.x == first.x
    assert longer.y - first.y == chart.y_ticks[1].at - chart.y_ticks[0].at > 0
    assert (frame.x, frame.y, frame.text) == (second.x, second.y, "read by ltd, seed 1, ltd, seed 2")
    assert chart.words == "Separates best: blocks 3 to 4, AUC 0.900."
    assert [(tick.text, tick.at) for tick in chart.x_ticks] == [
        (str(3 + at), chart.left + (at + 0.5) * first.width) for at in (0, 1)
    ]


def test_points_of_all_clouds_share_a_scale_that_fills_the_frame():
    clouds = [("fake", "f", np.array([[0.0, 0.0], [1.0, 2.0]])), ("real", "r", np.array([[2.0, 4.0]]))]
    fake, real = cloud_chart("t", clouds, "").marks
    assert (fake.path, real.path) == ("M8 222h0M180 123h0", "M352 24h0")


@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e4))
def test_ticks_are_few_and_inside(low, span):
    curve = Curve("fake", "gan", [0, 1], [low, low + span])
    chart = curve_chart("t", [curve], x_label="x", y_label="y", y_scale=(low, low + span))
    assert 2 <= len(chart.y_ticks) <= 8
    assert all(chart.top <= tick.at <= chart.floor for tick in chart.y_ticks)
    assert len({tick.at for tick in chart.y_ticks}) == len(chart.y_ticks)
