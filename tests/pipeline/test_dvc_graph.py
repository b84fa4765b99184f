"""dvc.yaml against the commands it runs: what a command reads from params.yaml is what its stage lists."""

import ast
import subprocess

import pytest
import yaml

from pipeline import workspace
from running import PROJECT
from stages.evaluate import run as evaluate
from stages.sweep import run as sweep
from stages.train import run as train

GRAPH = {
    name: stage.get("do", stage) for name, stage in yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"].items()
}

# stage -> what its command reads of params.yaml (`*` is the stage's own name on an axis), and what of stages/ it runs.
STAGES = {
    "demo-images": ({"demo.*", "corpora.*"}, ["stages/demo/images.py", "stages/scan/run.py"]),
    "extract": ({"extract", "corpora.*"}, ["stages/extract/run.py"]),
    "train": ({"heads", "seeds", "train"}, ["stages/train/run.py"]),
    "evaluate": ({"evaluate.match", "heads", "seeds", "train_on"}, ["stages/evaluate/run.py"]),
    "import-scores": ({"external.*"}, ["stages/evaluate/external.py"]),
    "sweep-window": ({"heads.ltd", "seeds", "train", "evaluate.corpora"}, ["stages/sweep/run.py"]),
    "sweep-generators": ({"heads.ltd", "seeds", "train", "evaluate.corpora"}, ["stages/sweep/run.py"]),
    "sweep-layer": ({"seeds", "train", "evaluate.corpora"}, ["stages/sweep/run.py"]),
    "analyse": (set(), ["stages/analyse/run.py"]),
    "audit": ({"corpora.*"}, ["stages/audit/run.py"]),
    "report": (
        {
            "study",
            "notes",
            "demo",
            "corpora",
            "extract",
            "heads",
            "train",
            "train_on",
            "seeds",
            "sweeps",
            "evaluate",
            "external",
        },
        ["pipeline/study.py"],
    ),
}


@pytest.mark.parametrize("name", GRAPH)
def test_a_stage_is_described_and_lists_exactly_the_parameters_its_command_reads(name):
    assert GRAPH[name]["desc"]
    params = [entry.replace("${item.corpus}", "*").replace("${key}", "*") for entry in GRAPH[name].get("params", [])]
    assert set(params) == STAGES[name][0]


def imported(module):
    """Names that a file imports when it runs, those in functions too; what is for type checkers alone is left out."""
    found = set()
    todo = [ast.parse(module.read_text())]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
        skipped = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        todo += [] if skipped else ast.iter_child_nodes(node)
    return found


def code_of(*starts):
    """The files of stages/ that run when these do, with the data files that they name."""
    seen = set()
    todo = [PROJECT / start for start in starts]
    while todo:
        module = todo.pop()
        if module in seen:
            continue
        seen.add(module)
        for name in imported(module):
            path = PROJECT.joinpath(*name.split(".")).with_suffix(".py")
            if name.startswith("stages.") and path.is_file():
                todo.append(path)
        text = module.read_text()
        seen |= {data for data in module.parent.glob("*.yaml") if data.name in text}
    return {str(path.relative_to(PROJECT)) for path in seen if path.is_relative_to(PROJECT / "stages")}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_all_the_code_that_it_runs_and_on_no_other(name):
    deps = [dep for dep in GRAPH[name]["deps"] if dep.startswith("stages")]
    code = code_of(*STAGES[name][1])
    assert sorted(path for path in code if not any(path == dep or path.startswith(f"{dep}/") for dep in deps)) == []
    assert [dep for dep in deps if not any(path == dep or path.startswith(f"{dep}/") for path in code)] == []


@pytest.mark.parametrize(
    ("name", "code"), [("train", train.CODE), ("evaluate", evaluate.CODE), ("sweep-layer", sweep.CODE)]
)
def test_what_is_finished_is_known_by_the_code_that_decides_its_bytes(name, code):
    named = {dep for dep in GRAPH[name]["deps"] if dep.startswith("stages")}
    assert named - {*code} <= {"stages/recipe.py", "stages/train/batches.py"}  # these decide no score
    assert {*code} <= named


@pytest.mark.parametrize(
    "file",
    [
        *("report/chart.py", "report/published.yaml", "report/template/report.html.j2"),
        *("heads/model_card.py", "sweep/run.py", "measure/metrics.py", "predict/run.py"),
    ],
)
def test_an_edit_of_words_and_tables_trains_and_scores_nothing(file):
    path = f"stages/{file}"
    assert (PROJECT / path).exists()
    for name in ("extract", "train", "evaluate"):
        assert [dep for dep in GRAPH[name]["deps"] if path == dep or path.startswith(f"{dep}/")] == [], name


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_the_code_of_storage_that_spells_its_texts(name):
    deps = GRAPH[name]["deps"]
    modules = [PROJECT / path for path in code_of(*STAGES[name][1]) if path.endswith(".py")]
    used = {found for module in modules for found in imported(module)}
    spelling = {"storage.csv_text": "storage/csv_text.py", "storage.names.printable": "storage/names.py"}
    assert [path for found, path in spelling.items() if found in used and path not in deps] == []


def test_outs_lie_where_the_commands_write():
    outs = {
        name: [out if isinstance(out, str) else next(iter(out)) for out in [*stage["outs"], *stage.get("plots", [])]]
        for name, stage in GRAPH.items()
    }
    corpus, trained = (f"${{item.{axis}}}" for axis in ("corpus", "trained"))
    assert str(workspace.manifest(corpus)) in outs["demo-images"]
    assert outs["extract"] == [str(workspace.features(corpus)), str(workspace.contents(corpus))]
    assert [outs[f"sweep-{kind}"] for kind in ("window", "layer", "generators")] == [
        [str(workspace.sweep(trained, kind))] for kind in ("window", "layer", "generators")
    ]
    assert outs["train"] == [str(workspace.head(trained, "x", 0).parents[1]), str(workspace.curves(trained))]
    assert outs["evaluate"] == [str(workspace.scores(corpus, trained, "x", 0).parents[1])]
    assert outs["import-scores"] == [str(workspace.external("${key}"))]
    assert outs["audit"] == [str(workspace.audit(corpus, trained))]
    suffixes = (".parquet", ".windows.parquet", ".projection.parquet", ".csv")
    assert outs["analyse"] == [str(workspace.analysis(corpus).with_suffix(suffix)) for suffix in suffixes]
    assert all(out.startswith(str(workspace.report("${study}"))) for out in outs["report"])


def test_what_the_graph_makes_is_ignored_by_git():
    made = ["corpora/demo-x.parquet", ".ltdpipe/x"]
    made += [f"{folder}/x/y.json" for folder in ("data", "heads", "scores", "analysis", "audit", "reports", "sweeps")]
    done = subprocess.run(["git", "check-ignore", *made], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == made
