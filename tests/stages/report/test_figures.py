import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.evaluate.means import Mean
from stages.report.figures import Curve, band_chart, bar_chart, common_scale, curve_chart


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
