"""The table that ends the demo, as a terminal shows it."""

import io

from rich.console import Console

from stages.report.metrics_file import MEAN_KEY, result_table


def test_four_heads_fit_a_terminal_of_80_columns():
    line = {"ap": 1.0, "accuracy": 0.5}
    mean = line | {"ap_sets": 1, "accuracy_sets": 1, "sets": 1}
    metrics = {head: {"demo-test/bilinear": line, MEAN_KEY: mean} for head in ("ltd", "ltd-raw", "ltd-delta", "linear")}
    out = io.StringIO()
    Console(file=out, width=80).print(result_table(metrics))
    assert out.getvalue().count("1.000 / 0.500") == 8
    assert len(out.getvalue().splitlines()) == 7  # title, head, rule, set, rule, mean, sets: nothing is broken in two
