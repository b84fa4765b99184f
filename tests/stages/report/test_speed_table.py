"""How long a study took: a table beside the report."""

from stages.report.speed import Measured, speed_table, write_speed

RUNS = [
    Measured("extraction", "progan", 4.0, 80, "one"),
    Measured("training", "ltd", 2.0, None, "one", 12_613_638),
    Measured("training", "ltd", 4.0, None, "another"),
    Measured("scoring", "ltd", 1.0, 10, "one"),
    Measured("scoring", "ltd", 3.0, 30, "one"),
]


def test_runs_of_one_thing_are_put_together_and_machines_are_named():
    table = speed_table(RUNS, "x")
    assert [block.title for block in table.blocks] == ["extraction", "training", "scoring"]
    (extraction,), (training,), (scoring,) = (block.rows for block in table.blocks)
    assert (extraction[1:3], extraction[3].text, extraction[4].text) == ([1, 80], "4.0", "20.0")
    assert (training[1:3], training[3].text, training[4]) == ([2, None], "3.0", None)
    assert training[-1] == "one; another"
    assert (scoring[3].text, scoring[4].text, scoring[5].text) == ("2.0", "10.0", "100.000")
    assert (training[5:7], scoring[6]) == ([None, 12_613_638], None)


def test_files_are_written_and_those_of_an_earlier_run_do_not_stay(tmp_path):
    write_speed([*RUNS, Measured("scoring", "<b>", 1.0, 1, "one")], tmp_path, "x")
    assert {path.name for path in tmp_path.iterdir()} == {f"speed.{end}" for end in ("csv", "html", "md", "tex")}
    page = (tmp_path / "speed.html").read_text()
    assert "<h1>x: speed</h1>" in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    write_speed([], tmp_path, "x")
    assert list(tmp_path.iterdir()) == []
