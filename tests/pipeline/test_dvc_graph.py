"""dvc.yaml against the commands it runs: what a command reads from params.yaml is what its stage lists."""

from __future__ import annotations

import shlex
import subprocess

import pytest
import yaml

from pipeline import paths
from running import PROJECT, run_command

GRAPH = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]

# What each command reads of params.yaml, by the code of pipeline/commands. `*` is the stage's own name on an axis.
READS = {
    "demo-images": {"demo.*", "corpora.*"},
    "extract": {"extract", "corpora.*"},
    "train": {"heads.*", "train"},
    "evaluate": {"evaluate.match"},
    "sweep": {"heads", "seeds", "train", "evaluate.corpora"},
    "analyse": set(),
    "audit": {"corpora.*"},
    "report": {"study", "notes", "demo", "corpora", "heads", "train_on", "seeds", "evaluate"},
}


def test_every_stage_is_described_and_its_reads_are_known():
    assert set(GRAPH) == set(READS)
    assert all(stage["desc"] for stage in GRAPH.values())


@pytest.mark.parametrize("name", READS)
def test_a_stage_lists_exactly_the_parameters_its_command_reads(name):
    listed = {
        entry.replace("${item.corpus}", "*").replace("${item.head}", "*") for entry in GRAPH[name].get("params", [])
    }
    assert listed == READS[name]


@pytest.mark.parametrize("name", GRAPH)
def test_a_stage_depends_on_the_code_it_runs(name):
    deps = GRAPH[name]["deps"]
    assert all((PROJECT / dep).exists() for dep in deps if dep.startswith(("stages", "storage")))
    assert any(dep.startswith("stages/") for dep in deps)


def test_commands_carry_identity_only():
    for stage in GRAPH.values():
        commands = stage["cmd"] if isinstance(stage["cmd"], list) else [stage["cmd"]]
        for command in commands:
            options = {word for word in shlex.split(command) if word.startswith("--")}
            assert options <= {"--corpus", "--trained-on", "--head", "--seed"}


def test_outs_lie_where_the_commands_write():
    outs = {
        name: [out if isinstance(out, str) else next(iter(out)) for out in [*stage["outs"], *stage.get("plots", [])]]
        for name, stage in GRAPH.items()
    }
    corpus, trained, head, seed = (f"${{item.{axis}}}" for axis in ("corpus", "trained", "head", "seed"))
    assert str(paths.manifest(corpus)) in outs["demo-images"]
    assert outs["extract"] == [str(paths.features(corpus))]
    head_file = paths.head(trained, head, seed)
    assert outs["train"] == [str(head_file), str(head_file).replace(".safetensors", ".csv")]
    assert outs["evaluate"] == [str(paths.scores(corpus, trained, head, seed))]
    assert outs["audit"] == [str(paths.audit(corpus, trained))]
    suffixes = (".parquet", ".windows.parquet", ".projection.parquet", ".csv")
    assert outs["analyse"] == [str(paths.analysis(corpus).with_suffix(suffix)) for suffix in suffixes]
    assert all(out.startswith(str(paths.report("${study}"))) for out in outs["report"])


def test_a_study_without_demo_images_is_a_valid_graph(tmp_path, clone_of_project):
    clone = clone_of_project(tmp_path / "clone")
    params = yaml.safe_load((clone / "params.yaml").read_text())
    params["demo"] = {}
    (clone / "params.yaml").write_text(yaml.safe_dump(params))
    listed = run_command("dvc", "stage", "list", "--name-only", cwd=clone).stdout.split()
    assert "extract@demo-train" in listed
    assert not any(name.startswith("demo-images") for name in listed)


def test_what_the_graph_makes_is_ignored_by_git():
    made = [
        "data/x",
        "heads/x",
        "scores/x",
        "analysis/x",
        "audit/x/y.json",
        "reports/x",
        "sweeps/x",
        "corpora/demo-x.parquet",
        ".ltdpipe/x",
    ]
    done = subprocess.run(["git", "check-ignore", *made], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == made
