import csv
import io

import pytest

from stages.report.table import Block, Table, Value, latex, to_csv, to_latex, to_markdown


@pytest.fixture
def table():
    rows = [
        ["a_b", 3, Value(0.9712, std=0.004), Value(0.5)],
        ["c", 3, Value(0.97118), Value(0.7)],
        ["d", 1, Value(0.8), Value(0.6)],
        ["e", 1, Value(None), None],
    ]
    accuracy = [["a_b", 3, Value(0.3, scale=1, digits=3), None], ["c", 3, Value(0.1, scale=1, digits=3), None]]
    blocks = [Block("AP", rows), Block("accuracy", accuracy)]
    header, notes = ["head", "seeds", "x", "y"], ["50 % of <all>"]
    return Table("Results & more", header, blocks, ranked=(2, 3), block_name="metric", notes=notes)


def test_best_and_second_are_marked_as_printed_and_within_their_block(table):
    text = to_markdown(table)
    assert "| a\\_b | 3 | **97.12** ± 0.40 | 50.00 |" in text
    assert "| c | 3 | **97.12** | **70.00** |" in text  # equal as printed: both are best
    assert "| d | 1 | <ins>80.00</ins> | <ins>60.00</ins> |" in text
    assert "| e | 1 | undefined |  |" in text
    assert "| a\\_b | 3 | **0.300** |  |" in text
    assert "| c | 3 | <ins>0.100</ins> |  |" in text
    alone = Table("t", ["head", "x"], [Block("", [["a", Value(0.5)]])], ranked=(1,))
    assert "**" not in to_markdown(alone)


def test_latex_is_a_booktabs_table_with_escaped_names(table):
    text = to_latex(table)
    for line in (
        r"\begin{tabular}{lrrr}",
        r"\toprule",
        r"a\_b & 3 & \textbf{97.12} {\scriptsize $\pm$ 0.40} & 50.00 \\",
        r"d & 1 & \underline{80.00} & \underline{60.00} \\",
        r"\multicolumn{4}{l}{\textit{accuracy}} \\",
        r"% 50 \% of \textless{}all\textgreater{}",
        r"\bottomrule",
    ):
        assert line in text.splitlines()
    assert text.count(r"\midrule") == 2


def test_csv_holds_full_precision_and_no_rounded_text(table):
    rows = list(csv.DictReader(io.StringIO(to_csv(table))))
    found = [(row["metric"], row["head"], row["x"]) for row in rows[:2]]
    assert found == [("AP", "a_b", "0.9712"), ("AP", "c", "0.97118")]
    assert rows[3]["x"] == ""


@pytest.mark.parametrize(
    "text", ["\\input{/etc/passwd}", "$x$", "a & b \\\\ c", "100% off", "#1 ~ ^", "[x]", "{", "a\nb", '"a"', "a--b"]
)
def test_latex_obeys_no_name(text):
    escaped = latex(text)
    assert "--" not in escaped  # ligatures join them
    for command in (r"\char34{}", r"\textbackslash{}", r"\textasciitilde{}", r"\textasciicircum{}", r"\{", r"\}"):
        escaped = escaped.replace(command, "")
    for special in "&%$#_":
        escaped = escaped.replace(f"\\{special}", "")
    assert '"' not in escaped  # German shorthands begin with it
    assert not set(escaped.replace("{[}", "").replace("{]}", "").replace("-{}-", "")) & set("\\&%$#_{}~^[]\n")
