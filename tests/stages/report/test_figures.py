import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.measure.frame import Mean
from stages.report.figures import Curve, band_chart, bar_chart, cloud_chart, common_scale, curve_chart, heat_map


def test_bars_are_as_long_as_their_values_and_whiskers_stay_on_the_scale():
    values = [
        ("ap", "AP", Mean(1.0, 0.1, 2, 2), (0.9, 1.0)),
        ("x", "x", Mean(0.5, 0.1, 2, 2), (0.4, 0.6)),
        ("y", "y", Mean(0.0, None, 1, 1), None),
    ]
    chart = bar_chart("t", [("ltd", values)])
    full, half, none = chart.groups[0].bars
    assert half.width == pytest.approx(full.width / 2)
    assert none.width == 0
    assert none.whisker is None
    assert full.whisker[1] == chart.x_ticks[-1].at
    low, high = half.whisker
    assert (low + high) / 2 == pytest.approx(chart.left + half.width, abs=0.01)
    assert chart.description == "ltd: AP 1.000 ±0.100, x 0.500 ±0.100, y 0.000."


def test_an_undefined_value_has_no_bar():
    chart = bar_chart("t", [("ltd", [("ap", "AP", Mean(None, None, 0, 2), None)])])
    assert chart.groups[0].bars[0].width is None
    assert "AP undefined" in chart.description


def test_curves_and_bands_lie_inside_the_frame():
    x, limits = [3, 4, 5], (-1.0, 1.0)
    curves = [
        Curve("real", "real", x, [0.9, 0.99, 1.0], [0.05] * 3),
        Curve("fake", "gan", x, [0.7, 0.8, 0.9], [None] * 3),
    ]
    scale = common_scale(curves, limits)
    chart = band_chart("t", curves, limits=limits, scale=scale)
    assert scale[0] <= 0.7
    assert scale[1] == 1.0
    for line in chart.lines:
        points = [tuple(map(float, point.split(","))) for point in (line.points + " " + line.band).split()]
        assert all(chart.left <= x <= chart.right and 0 < y <= chart.floor for x, y in points)
    assert [tick.text for tick in chart.x_ticks] == ["3", "4", "5"]
    assert "gan: from 0.7 to 0.9, most at transition 5." in chart.description
    top = max(float(point.split(",")[1]) for point in chart.lines[0].points.split()[:1])
    upper, lower = (float(chart.lines[0].band.split()[at].split(",")[1]) for at in (0, -1))
    assert upper < top < lower


def test_bands_are_cut_at_what_the_quantity_can_be():
    curve = Curve("real", "real", [0, 1], [0.02, 0.98], [0.05, 0.05])
    assert curve.band((0.0, 1.0)) == ([0.0, pytest.approx(0.93)], [pytest.approx(0.07), 1.0])
    assert common_scale([curve], (0.0, 1.0)) == (0.0, 1.0)
    chart = band_chart("t", [curve], limits=(0.0, 1.0), scale=(-1.0, 2.0))
    edges = [tuple(map(float, point.split(","))) for point in chart.lines[0].band.split()]
    zero, one = (tick.at for tick in chart.y_ticks if tick.text in {"0", "1"})
    assert [y for _, y in edges][1::2] == [one, zero]


def test_windows_lie_at_their_start_and_length_and_have_the_colour_of_who_moves_more():
    chart = heat_map("t", [(3, 2, 0.9), (4, 2, 0.4), (3, 5, 0.5)], [(4, 2, "ltd, seed 1"), (4, 2, "ltd, seed 2")])
    first, second, longer = chart.cells
    assert [(cell.kind, cell.strength) for cell in chart.cells] == [("more", 0.8), ("less", 0.2), ("more", 0.0)]
    assert (second.x - first.x, second.y - first.y) == (first.width, 0)
    assert (longer.x - first.x, longer.y - first.y) == (0, 3 * chart.cell_height)
    assert [(frame.x, frame.y, frame.text) for frame in chart.frames] == [
        (second.x, second.y, "chosen by ltd, seed 1, ltd, seed 2")
    ]
    assert "Most telling: blocks 3 to 4, AUC 0.900." in chart.description
    assert [(tick.text, tick.at) for tick in chart.x_ticks] == [
        (str(3 + at), chart.left + (at + 0.5) * first.width) for at in (0, 1)
    ]


def test_points_of_all_clouds_share_a_scale_that_fills_the_frame():
    chart = cloud_chart(
        "t", [("fake", "f", np.array([[0.0, 0.0], [1.0, 2.0]])), ("real", "r", np.array([[2.0, 4.0]]))], ""
    )
    fake, real = chart.clouds
    assert fake.path == "M8 208h0M180 109h0"
    assert real.path == "M352 10h0"


def test_equal_values_still_have_a_scale():
    curves = [Curve("real", "real", [0, 1], [0.0, 0.0], [0.0, 0.0])]
    low, high = common_scale(curves, (0.0, float("inf")))
    assert low <= 0 < high
    chart = band_chart("t", curves, limits=(0.0, float("inf")), scale=(low, high))
    assert chart.y_ticks[0].text == "0"


@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e4))
def test_ticks_are_few_and_inside(low, span):
    chart = curve_chart("t", [Curve("fake", "gan", [0, 1], [low, low + span])], x_label="x", y_scale=(low, low + span))
    assert 2 <= len(chart.y_ticks) <= 8
    assert all(10 <= tick.at <= chart.floor for tick in chart.y_ticks)
    assert len({tick.at for tick in chart.y_ticks}) == len(chart.y_ticks)
