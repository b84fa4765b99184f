"""Whatever is wrong with its inputs or the disk, a command leaves every file as it was, and says so in one line.

One row of ``CASES`` is one command with its inputs and outputs. Each input is tried missing, empty, cut in half, and
as a file of another corpus, head or kind where that cannot be right; the disk is tried full, and with room for all but
a page of what the command writes. Outputs hold other bytes beforehand, so that whatever writes to them is caught.
"""

import hashlib
import os
import resource
import shutil
import subprocess
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
import yaml

from running import PROJECT, demo_params, ltdpipe
from stages.demo.miniatures import run as make_miniatures
from storage.manifest import read_manifest

PARAMS = {
    "study": "study",
    "demo": {
        "train": {"half": "left", "generators": ["nearest"], "per_set": 12, "seed": 0},
        "test": {"half": "right", "generators": ["nearest"], "per_set": 8, "seed": 1},
    },
    "corpora": {
        "train": {"root": "data/images/train", "layout": "folder"},
        "test": {"root": "data/images/test", "layout": "folder", "views": ["clean", "jpeg:80"]},
    },
    "heads": {"linear": {"type": "linear"}, "ltd": {"type": "ltd", "window": 3, "candidates": [17, 20]}},
    "sweeps": {"window": ["train"], "layer": [], "generators": []},
    "train_on": ["train"],
    "seeds": [0],
    "train": {"lr": 0.01, "epochs": 20, "batch": 8, "validation_share": 0.4},
    "evaluate": {"corpora": ["test"], "match": ["jpeg+size"]},
}
TRAIN, TEST = "data/features/train/clean", "data/features/test/clean"
HEAD, SCORES = "heads/train/linear/0.safetensors", "scores/test/train/linear-0"
PREPARE = """
demo-images --corpus train
demo-images --corpus test
scan --corpus train
scan --corpus test
extract --corpus train --loaders 0
extract --corpus test --loaders 0
train --head linear --seed 0
train --head ltd --seed 0
evaluate --head linear --seed 0 --corpus test
evaluate --head ltd --seed 0 --corpus test
analyse --corpus test
audit --corpus test
sweep window
report --quiet
bundle heads/train/linear/0.safetensors -o detector.ltd
bundle heads/train/ltd/0.safetensors -o other.ltd
predict detector.ltd data/images/test/real -o results.csv --loaders 0
predict other.ltd data/images/test/real -o others.csv --loaders 0
"""


@dataclass(frozen=True)
class Case:
    """A command, the files it reads, and those it writes.

    Attributes:
        command: the arguments of ``ltdpipe``.
        inputs: file -> one of another corpus or head that must not be taken for it; None: any such file will do.
        outputs: files it replaces.
        harmless: what is no fault of an input, such as "empty card.md".
        new: files it writes where there is none, as it replaces no such file.
    """

    command: str
    inputs: dict[str, str | None] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    harmless: tuple[str, ...] = ()
    new: tuple[str, ...] = ()


PAGE = 4096
FULL = ("full", "nearly full")
CODES = {"missing": 3, "empty": 3, "cut": 3, "another": 3, "full": 4, "nearly full": 4}
PROFILES = tuple(f"analysis/test{suffix}" for suffix in (".parquet", ".csv", ".windows.parquet", ".projection.parquet"))
REPORT = tuple(f"reports/study/{name}" for name in ("report.html", "metrics.json", "tables/per_seed.csv"))
CASES = (
    Case("demo-images --corpus test", {"params.yaml": None}, ("data/images/test/real/00000.png",)),
    Case("scan --corpus test", {"data/images/test": None}, ("corpora/test.parquet",)),
    Case(
        "extract --corpus test --loaders 0",
        {"params.yaml": None, "corpora/test.parquet": "corpora/train.parquet"},
        ("data/contents/test.json",),
    ),
    Case(
        "train --head linear --seed 0",
        {f"{TRAIN}/index.parquet": f"{TEST}/index.parquet", f"{TRAIN}/shard-00000.h5": None},
        (HEAD, "heads/train/linear/0.csv"),
    ),
    Case(
        "evaluate --head linear --seed 0 --corpus test",
        {
            HEAD: None,
            f"{TEST}/index.parquet": f"{TRAIN}/index.parquet",
            f"{TEST}/shard-00000.h5": None,
            "data/features/test/jpeg-80/shard-00000.h5": None,
            f"{TRAIN}/index.parquet": f"{TEST}/index.parquet",
        },
        tuple(f"{SCORES}/{view}.parquet" for view in ("clean", "jpeg-80", "matched-jpeg+size", "held-out")),
    ),
    Case("analyse --corpus test", {f"{TEST}/index.parquet": None, f"{TEST}/shard-00000.h5": None}, PROFILES),
    Case(
        "audit --corpus test",
        {f"{TEST}/index.parquet": None, f"{TRAIN}/index.parquet": None},
        ("audit/test/train.json",),
    ),
    Case(
        "sweep window",
        {f"{TRAIN}/index.parquet": f"{TEST}/index.parquet", f"{TEST}/index.parquet": f"{TRAIN}/index.parquet"},
        ("sweeps/train/window/results.csv",),
    ),
    Case(
        "report --quiet",
        {
            "params.yaml": None,
            f"{SCORES}/clean.parquet": HEAD,
            PROFILES[0]: HEAD,
            "audit/test/train.json": "params.yaml",
            "sweeps/train/window/results.csv": HEAD,
        },
        REPORT,
        ("missing audit/test/train.json",),
    ),
    Case(
        "import-scores rival.csv --as rival --corpus test",
        {"rival.csv": "others.csv", f"{TEST}/index.parquet": f"{TRAIN}/index.parquet"},
        ("scores/external/rival/clean.parquet",),
    ),
    Case("compare linear ltd --out own.csv", {f"{SCORES}/clean.parquet": HEAD}, ("own.csv",)),
    Case("show heads/train/linear/0.safetensors --out own.md", {HEAD: "detector.ltd"}, ("own.md",)),
    Case(
        f"import-head univfd.pt --format univfd --features {TEST} --out own.safetensors",
        {"univfd.pt": HEAD, f"{TEST}/index.parquet": None},
        ("own.safetensors",),
    ),
    Case(
        f"bundle {HEAD} -o own.ltd --features {TRAIN}",
        {HEAD: "detector.ltd", f"{TRAIN}/index.parquet": None, f"{TRAIN}/shard-00000.h5": None},
        ("own.ltd",),
    ),
    Case(
        f"calibrate detector.ltd --on {SCORES}/clean.parquet --target-fpr 0.2",
        {"detector.ltd": HEAD, f"{SCORES}/clean.parquet": "scores/test/train/ltd-0/clean.parquet"},
    ),
    Case(
        f"calibrate detector.ltd --on {TEST} --target-fpr 0.2 -o own.ltd",
        {"detector.ltd": HEAD, f"{TEST}/index.parquet": None, f"{TEST}/shard-00000.h5": None},
        ("own.ltd",),
    ),
    Case(
        "calibrate detector.ltd --on results.csv --images real --target-fpr 0.2 -o own.ltd",
        {"detector.ltd": "other.ltd", "results.csv": "others.csv"},
        ("own.ltd",),
    ),
    *(
        Case(
            f"predict detector.ltd data/images/test/real -o {out} --loaders 0",
            {"detector.ltd": HEAD, "data/images/test/real": None},
            new=(out.split()[0],),
        )
        for out in ("new.csv", "new.html")
    ),
    Case(
        "predict detector.ltd data/images/test/real --resume results.csv --loaders 0",
        {"detector.ltd": "other.ltd", "results.csv": "others.csv"},
        # it starts where there is nothing, and goes on behind what was cut off
        harmless=("missing results.csv", "empty results.csv", "cut results.csv"),
    ),
    Case(
        "explain detector.ltd data/images/test/real/00000.png -o own.html",
        {"detector.ltd": HEAD, "data/images/test/real/00000.png": HEAD},
        ("own.html",),
    ),
    Case(
        "profile use small --force --data mini",
        {"mini/coco": None, "mini/forensynths/train": None},
        ("params.yaml", "corpora/progan.parquet", "corpora/genimage.parquet", ".ltdpipe/data-root"),
    ),
    Case(
        "extract data/images/test --out own --backbone demo-vit --taps cls --loaders 0",
        {"data/images/test": None},
        ("own/clean/index.parquet",),
    ),
    Case(
        f"export {TEST} --out exported",
        {f"{TEST}/index.parquet": f"{TRAIN}/index.parquet", f"{TEST}/shard-00000.h5": None},
        new=("exported/shard-00000.parquet",),
    ),
    Case(
        "verify",
        {f"{TEST}/index.parquet": f"{TRAIN}/index.parquet", f"{TEST}/shard-00000.h5": None},
    ),
)


def pairs():
    """Every command with every fault that it can meet: (case, fault, input or None)."""
    for case in CASES:
        for given, other in case.inputs.items():
            applies = {"missing": True, "empty": True, "cut": Path(given).suffix, "another": other}
            for fault in (fault for fault in applies if applies[fault]):
                if f"{fault} {given}" not in case.harmless:
                    yield pytest.param((case, fault, given), id=f"{case.command}: {fault} {given}")
        for fault in FULL if case.outputs or case.new else ():
            yield pytest.param((case, fault, None), id=f"{case.command}: {fault}")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A small study, extracted, trained, scored and reported, on a disk of its own where that is allowed."""
    folder = tmp_path_factory.mktemp("disk") / "study"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "none", folder]
    mounted = subprocess.run(mount, capture_output=True, check=False)
    before = Path.cwd()
    try:
        shutil.copytree(PROJECT / "profiles", folder / "profiles")
        demo = demo_params()
        (folder / "params.yaml").write_text(yaml.safe_dump(demo | PARAMS))
        paper = yaml.safe_load((PROJECT / "profiles/paper.yaml").read_text())
        paper["extract"]["backbone"] = "demo-vit"
        (folder / "profiles/small.yaml").write_text(yaml.safe_dump(paper))
        (folder / "card.md").write_text("A card.\n" * 3)
        (folder / "data/images/test/fake/unseen").mkdir(parents=True)
        torch.save({"weight": torch.zeros(1, 64), "bias": torch.zeros(1)}, folder / "univfd.pt")
        os.chdir(folder)
        for line in PREPARE.strip().splitlines():
            assert ltdpipe(line) == 0, line
        make_miniatures(root=Path("mini"), test_images=1, training_images=1)
        listed = read_manifest(Path("corpora/test.parquet"))["path"].to_pylist()
        Path("rival.csv").write_text("\n".join(["path,score", *(f"{path},0.{n}" for n, path in enumerate(listed))]))
        yield folder
    finally:
        os.chdir(before)
        if mounted.returncode == 0:
            subprocess.run(["umount", "-l", folder], check=True)


def snapshot():
    """The content of all files; the store's memory of what was checked, and its locks, are no results."""
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in Path().rglob("*")
        if path.is_file() and not {"checked", "filler"} & set(path.parts) and path.name != ".lock"
    }


def forget_what_is_finished():
    """Heads and scores that the store has are not made again, and need neither sound features nor room."""
    for kind in ("heads", "scores"):
        shutil.rmtree(Path(".ltdpipe", "store", kind), ignore_errors=True)


@contextmanager
def replaced(path, content):
    """Put other bytes (None: nothing; "folder": an empty one) in the place of a file or folder; then that again."""
    aside = Path("aside", path.name)
    aside.parent.mkdir(exist_ok=True)
    if path.exists():
        path.rename(aside)
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    try:
        yield
    finally:
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)
        if aside.exists():
            aside.rename(path)


@contextmanager
def broken(case, fault, given, sizes):
    """Break an input, or fill the disk but for a page less than outputs of these ``sizes`` take."""
    if given is not None:
        path, other = Path(given), case.inputs[given]
        content = {
            "missing": lambda: None,
            "empty": lambda: "folder" if path.is_dir() else b"",
            "cut": lambda: path.read_bytes()[: path.stat().st_size // 2],
            "another": lambda: Path(other).read_bytes(),
        }[fault]()
        with replaced(path, content):
            yield
    elif Path.cwd().is_mount():
        filler = Path("filler")
        try:
            with filler.open("wb") as file:
                pages = sum(-(-size // PAGE) for size in sizes) - 1
                room = pages * PAGE if fault == "nearly full" else 0
                os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(".").free - room)
            yield
        finally:
            filler.unlink()
    else:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        most = max(sizes) - 1 if fault == "nearly full" else 16  # a lock's file holds the number of a process
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture(scope="module")
def sizes_of(project):
    """Run a command once with nothing wrong, undo it, and return the sizes of its outputs."""
    sizes = {}

    def measured(case):
        if case.command not in sizes:
            kept = {path: path.read_bytes() for path in map(Path, case.inputs) if path.is_file()}
            with contents(case.outputs, b"old"):
                forget_what_is_finished()
                before = snapshot()
                assert ltdpipe(case.command) == 0
                sizes[case.command] = [Path(output).stat().st_size for output in case.outputs + case.new]
                for path in snapshot().keys() - before.keys():
                    path.unlink()
            for path, content in kept.items():
                if path.read_bytes() != content:
                    path.write_bytes(content)
        return sizes[case.command]

    return measured


@contextmanager
def contents(paths, content):
    with ExitStack() as kept:
        for path in map(Path, paths):
            kept.enter_context(replaced(path, content))
        yield


@pytest.mark.parametrize("pair", list(pairs()))
def test_a_command_that_fails_leaves_every_file_as_it_was(project, sizes_of, capsys, pair):
    case, fault, given = pair
    sizes = sizes_of(case)
    forget_what_is_finished()
    with contents(case.outputs, b"old"), broken(case, fault, given, sizes):
        before = snapshot()
        capsys.readouterr()
        code = ltdpipe(case.command)
        said = capsys.readouterr().err.splitlines()
        after = snapshot()
    assert {path: after.get(path) for path in before} == before
    assert [path for path in after.keys() - before.keys() if path.parts[0] != ".ltdpipe"] == []
    (first,) = (number for number, line in enumerate(said) if line.startswith("error: "))
    settings = [line for line in said[first:] if line.removeprefix("error: ").startswith("params.yaml: ")]
    assert said[first:] in (said[-1:], settings)  # a wrong setting has a line, and so has each
    assert "".join(said).isprintable()
    assert code == (2 if given == "params.yaml" else CODES[fault])


@pytest.mark.parametrize(
    "command",
    [
        f"bundle {HEAD} -o {HEAD}",
        f"calibrate detector.ltd --on {SCORES}/clean.parquet --target-fpr 0.2 -o {SCORES}/clean.parquet",
        "predict detector.ltd data/images/test/real -o results.csv --loaders 0",
        "explain detector.ltd data/images/test/real/00000.png -o data/images/test/../test/real/00000.png",
        f"analyse --features {TEST} --out {TEST}/index.parquet",
        f"evaluate --head-file {HEAD} --features {TEST} --out {HEAD}",
        f"import-head univfd.pt --format univfd --features {TEST} --out univfd.pt",
        "scan corpora/test.parquet --out corpora/test.parquet",
        "scan data/images/test --out data/images/test/real/00000.png",
    ],
)
def test_an_output_is_none_of_the_inputs(project, capsys, command):
    before = snapshot()
    assert ltdpipe(command) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert snapshot() == before


def test_a_generator_whose_folder_is_empty_is_counted_from_the_folder_to_the_report(project):
    assert Path("data/images/test/fake/unseen").is_dir()
    assert "over 1 of 2 sets" in Path("reports/study/report.html").read_text()
