import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from storage.csv_text import csv_text, escaped, unescaped


def test_text_that_a_spreadsheet_would_run_is_disarmed_and_numbers_stay():
    rows = [
        ["=cmd|' /C calc'!A0", -1.5],
        ["+1", 2],
        ["@x", None],
        ["-y", 0.1 + 0.2],
        ["\t=z", 1e-9],
        ["\rx", -1],
        ["plain, with comma", 1],
    ]
    read = list(csv.reader(io.StringIO(csv_text(["=head", "value"], rows), newline="")))
    assert [row[0] for row in read] == [
        "'=head", "'=cmd|' /C calc'!A0", "'+1", "'@x", "'-y", "'\t=z", "'\rx", "plain, with comma",
    ]  # fmt: skip
    assert [row[1] for row in read[1:]] == ["-1.5", "2", "", "0.30000000000000004", "1e-09", "-1", "1"]


@given(st.text(st.sampled_from("'=+-@\t\r\na"), max_size=5))
def test_escaped_text_runs_nothing_and_comes_back(text):
    assert not escaped(text).startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert unescaped(escaped(text)) == text
