import csv

from storage.csv_text import csv_text


def test_text_that_a_spreadsheet_would_run_is_disarmed_and_numbers_stay():
    rows = [
        ["=cmd|' /C calc'!A0", -1.5],
        ["+1", 2],
        ["@x", None],
        ["-y", 0.1 + 0.2],
        ["\t=z", 1e-9],
        ["plain, with comma", 1],
    ]
    read = list(csv.reader(csv_text(["=head", "value"], rows).splitlines()))
    assert [row[0] for row in read] == [
        "'=head", "'=cmd|' /C calc'!A0", "'+1", "'@x", "'-y", "'\t=z", "plain, with comma",
    ]  # fmt: skip
    assert [row[1] for row in read[1:]] == ["-1.5", "2", "", "0.30000000000000004", "1e-09", "1"]
