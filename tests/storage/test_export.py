"""Exported features: what other tools read of them, and what a second export does."""

import importlib.util
import json
import sys

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from synthetic import SPEC, extract, features, manifest, names

from running import PROJECT, ltdpipe, run_command

BROKEN = "fake/003.png"
PATHS = [name for name in names(10) if name != BROKEN]


@pytest.fixture
def view(tmp_path, own_store):
    """Three shards, one image of which failed."""
    extract(own_store, manifest(names(10)), out=tmp_path / "view", broken={BROKEN})
    return tmp_path / "view"


@pytest.fixture
def export(view, tmp_path, capsys):
    """Run the command; its folder, and what it prints."""

    def exported(options="", code=0):
        assert ltdpipe(f"export {view} -o {tmp_path / 'out'} {options}") == code
        captured = capsys.readouterr()
        return tmp_path / "out", captured.out + captured.err

    return exported


def test_columns_hold_the_index_and_the_features_of_each_block(export):
    out, said = export("--blocks 2-3 --taps cls,embedding")
    assert "toy: 9 images" in said
    table = ds.dataset(out).to_table()
    assert table["path"].to_pylist() == PATHS
    assert table["sets"].to_pylist() == [["toy"]] * 9
    assert table.column_names[-3:] == ["cls_2", "cls_3", "embedding"]
    assert [str(table.schema.field(name).type) for name in ("cls_2", "embedding")] == [
        "fixed_size_list<element: halffloat>[8]", "fixed_size_list<element: halffloat>[5]",
    ]  # fmt: skip
    expected = features(PATHS)
    for name, values in (("cls_2", expected["cls"][1]), ("embedding", expected["embedding"])):
        assert np.array_equal(np.stack(table[name].to_numpy()), values)
    assert json.loads(pq.read_schema(out / "shard-00000.parquet").metadata[b"ltdpipe"])["key"] == SPEC.key


def test_a_second_export_leaves_nothing_of_before(export, view, own_store):
    out, _ = export("--taps cls")
    (out / "shard-00002.parquet.0123.partial").write_text("cut off")
    relabelled = manifest(names(4), category="dog")
    extract(own_store, relabelled, out=view, broken={BROKEN})
    export("--taps cls")
    assert ds.dataset(out).to_table(["path", "category"]).to_pylist() == [
        {"path": path, "category": "dog"} for path in PATHS[:3]
    ]
    export("--taps embedding")
    assert ds.dataset(out).schema.names[-1] == "embedding"


@pytest.mark.parametrize(
    ("options", "words", "code"),
    [
        ("--blocks 2-9", "toy has the blocks 0-5", 2),
        ("--blocks middle", "expected all, a range such as 11-19", 2),
        ("--blocks 0,5", "lacks block(s) [0, 5]; it holds [1, 2, 3, 4]", 3),
        ("--taps ln2_cls", "has no tap 'ln2_cls'", 3),
    ],
)
def test_what_is_not_there_is_refused_before_anything_is_written(export, options, words, code):
    out, said = export(options, code)
    assert words in said
    assert not out.exists()


def test_files_of_others_and_the_features_themselves_are_never_written_over(export, view, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "shard-00000.parquet").write_text("precious")
    out, said = export(code=3)
    assert "files of another origin (shard-00000.parquet)" in said
    assert (out / "shard-00000.parquet").read_text() == "precious"
    assert ltdpipe(f"export {view} -o {view}/exported") == 2
    assert "would overwrite the input" in capsys.readouterr().err


# Heading in docs/interop.md -> module that has to be installed, and the numbers that it gives.
TOOLS = {
    "pandas": ("pandas", "float16"),
    "pyarrow": ("pyarrow", "float16"),
    "DuckDB": ("duckdb", "float32"),
    "Polars": ("polars", "float16"),
    "Hugging Face datasets": ("datasets", "float16"),
}
SHOW = "\nimport numpy as np; print(len(images), np.shape(tokens), tokens.dtype, np.sum(tokens, dtype=float))"


def recipe(heading):
    """The code under a heading of docs/interop.md, for features of these tests' width."""
    section = (PROJECT / "docs" / "interop.md").read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2]
    code = section.partition("```python\n")[2].partition("```")[0]
    return code.replace("cls_11", "cls_2").replace("1024", "8")


@pytest.mark.parametrize("heading", TOOLS)
def test_the_recipes_of_the_docs_read_it(export, tmp_path, heading):
    module, dtype = TOOLS[heading]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed; pip install -e '.[interop]' does it")
    out, _ = export("--taps cls")
    out.rename(tmp_path / "exported")
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    said = run_command(sys.executable, "-c", recipe(heading) + SHOW, cwd=tmp_path, **offline).stdout
    described, _, total = said.strip().rpartition(" ")
    assert described == f"9 (9, 8) {dtype}"
    assert float(total) == pytest.approx(features(PATHS)["cls"][1].astype(float).sum())
