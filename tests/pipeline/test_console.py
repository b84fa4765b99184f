"""What is shown of long work: a bar on a terminal, lines every few seconds elsewhere, JSON for programs."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest

from pipeline import console
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


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    with ConsoleReporter().progress("extract", 60, "images") as progress:
        progress.advance(60, failed=3)
    last = capsys.readouterr().err
    assert all(part in last for part in ("extract", "━", "60/60", "images/s", "3 failed"))


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
