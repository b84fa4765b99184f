"""What is shown of long work: a bar on a terminal, lines every few seconds elsewhere, JSON for programs."""

import json
import re
from contextlib import suppress

import pytest

from pipeline import console
from pipeline.commands.arguments import print_table
from pipeline.commands.study import _results
from pipeline.console import ConsoleReporter, JsonReporter


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_lines_tell_count_rate_time_left_failures_and_waiting(clock, capsys):
    with ConsoleReporter().progress("extract", 60, "images") as progress:
        progress.advance(0)
        clock[0] += 9
        progress.advance(18, failed=2)
        clock[0] += 1
        progress.advance(2, waiting=5.0)
        clock[0] += 9
        progress.advance(0)
        clock[0] += 1
        progress.advance(40)
    assert capsys.readouterr().err.splitlines() == [
        "extract: 20/60 images, 2.0 images/s, 20 s left, 2 failed, input wait 50%",
        "extract: 60/60 images, 3.0 images/s, 0 s left, 2 failed, input wait 25%",
        "extract: 60/60 images, 3.0 images/s, done, 2 failed, input wait 25%",
    ]


def test_unknown_lengths_nothing_done_and_failures_are_shown_as_they_are(clock, capsys):
    reporter = ConsoleReporter()
    with reporter.progress("scan", None, "files") as progress:
        clock[0] += 10
        progress.advance(5)
    with reporter.progress("sweep", 7, "heads") as progress:
        clock[0] += 10
        progress.advance(0)
    with suppress(ValueError), reporter.progress("audit", 7, "files") as progress:
        progress.advance(5)
        raise ValueError
    assert capsys.readouterr().err.splitlines() == [
        *("scan: 5 files, 0.5 files/s", "scan: 5 files, 0.5 files/s, done"),
        "sweep: 0/7 heads, 0.0 heads/s",
    ]


def test_words_of_a_user_are_not_taken_for_markup(capsys):
    reporter = ConsoleReporter()
    reporter.note("[bold]a[/bold] [x]")
    reporter.warn("[red]b")
    assert capsys.readouterr().err == "[bold]a[/bold] [x]\nwarning: [red]b\n"


def test_programs_get_one_object_a_line(clock, capsys):
    reporter = JsonReporter()
    reporter.note("a")
    reporter.warn("b")
    with reporter.progress("extract", 60, "images") as progress:
        clock[0] += 10
        progress.advance(20, failed=1, waiting=0.5)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert lines[:2] == [{"event": "note", "text": "a"}, {"event": "warning", "text": "b"}]
    shown = {"event": "progress", "what": "extract", "unit": "images", "done": 20, "total": 60, "failed": 1}
    assert lines[2:] == [shown | {"rate": 2.0, "waiting_s": 0.5}] * 2


@pytest.fixture
def results(monkeypatch, capsys):
    """Print what metrics.json holds on a terminal of some width; return the text."""

    def show(metrics, *, width=80, title="t"):
        monkeypatch.setenv("COLUMNS", str(width))
        print_table(*_results(metrics), title=title)
        return capsys.readouterr().out

    return show


LINE = {"ap": 1.0, "accuracy": 0.5}
MEAN = LINE | {"ap_sets": 1, "accuracy_sets": 1, "sets": 1}


def test_four_heads_fit_a_terminal_of_80_columns_and_more_are_its_rows(results):
    heads = ["ltd", "ltd-raw", "ltd-delta", "linear", *(f"head {number}" for number in range(20))]
    few = {head: {"demo-test": MEAN, "demo-test/one": LINE} for head in heads[:4]}
    text = results(few)
    assert text.count("100.0 / 50.0") == 8
    assert len(text.splitlines()) == 7  # title, head, rule, set, rule, mean, sets: nothing is broken in two
    title = "mine: AP / accuracy in percent, mean over seeds; random weights"
    assert results({"ltd": few["ltd"]}, title=title).startswith(title)  # as wide as the terminal, not as the table
    ufd = {"ufd": MEAN | {"ap": 0.25}, "ufd/one": LINE}
    assert re.search(r"mean of ufd *│ +25.0 / 50.0", results({"ltd": few["ltd"] | ufd}))
    many = {head: {"demo-test": MEAN, "demo-test/one": LINE, "ufd": MEAN} for head in heads}
    text = results(many)
    assert text.count("100.0 / 50.0") == 24 * 2
    assert len(text.splitlines()) == 24 + 3


def test_what_is_undefined_and_what_a_mean_covers_is_said(results):
    lines = {"demo": MEAN | {"accuracy_sets": 2, "sets": 2}, "demo/fakes": {"accuracy": 0.5}}
    text = results({"ltd": lines})
    assert "undefined / 50.0" in text
    assert "1 / 2 of 2" in text


def test_a_long_name_is_broken_and_no_number_is(results):
    heads = {f"head {number} (a-long-training-corpus)": {"demo": MEAN, "demo/one": LINE} for number in range(4)}
    assert results(heads).count("100.0 / 50.0") == 8


def test_the_terminal_obeys_no_name(results):
    text = results({"[red]head[/red]": {"demo": MEAN, "demo/\x1b[31mred\x07": LINE}}, title="[b]")
    assert "[red]head[/red]" in text
    assert "\\x1b[31mred\\x07" in text
    assert "\x1b" not in text
