"""Profiles: whole studies ready to run, kept as ``profiles/NAME.yaml`` and put to use as ``params.yaml``.

Before one is put to use: are its images there, are they what was published, has the machine room and time?
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections import Counter
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ruamel.yaml import YAML

from pipeline import workspace
from pipeline.params import params_from
from pipeline.plan import Plan
from stages.extract.registry import BACKBONES
from stages.scan.protocols import diffusion_sets, published_sizes
from stages.scan.run import run as scan
from storage.atomic import all_or_none
from storage.errors import DataError, SettingError
from storage.manifest import LIMIT_KEY, write_manifest

if TYPE_CHECKING:
    from collections.abc import Collection

    import pyarrow as pa

    from pipeline.params import Params
    from stages.reporter import Reporter

PROFILES = Path("profiles")


def profile_names() -> list[str]:
    """Return the names of all profiles of this project."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def profile_text(name: str, without: Collection[str] = ()) -> str:
    """Return the text of a profile, with some corpora left out.

    Raises:
        SettingError: there is no such profile.
    """
    if name not in profile_names():
        known = ", ".join(profile_names()) or f"none: {PROFILES.resolve()} holds no profile"
        raise SettingError(f"profile {name!r} does not exist; choose from {known}")
    text = (PROFILES / f"{name}.yaml").read_text(encoding="utf-8")
    if not without:
        return text
    yaml = YAML()  # keeps comments
    yaml.width = 120
    content = yaml.load(text)
    for corpus in without:
        del content["corpora"][corpus]
        if corpus in content["evaluate"]["corpora"]:
            content["evaluate"]["corpora"].remove(corpus)
    yaml.dump(content, written := StringIO())
    return written.getvalue()


def description(name: str) -> str:
    """Return the first sentence of the comment at the top of a profile."""
    comment = re.match(r"(?:#.*\n)*", profile_text(name))
    words = " ".join((comment[0] if comment else "").replace("#", " ").split())
    return re.split(r"(?<=\.)\s", words)[0]


def use(
    name: str, data: Path | None, reporter: Reporter, *, limit: int | None, skip_missing: bool, force: bool
) -> tuple[Params, Plan | None]:
    """Make a profile the project's params.yaml, after all checks have passed.

    Args:
        name: of the profile.
        data: the folder below which its corpora lie: they are listed and compared with what is published.
        reporter: gets what was found.
        limit: so many images of each kind are enough.
        skip_missing: leave out corpora that are only evaluated on and are not there.
        force: also over edits of params.yaml that are not committed.

    Returns:
        The study, and with ``data`` what its extraction needs.

    Raises:
        SettingError: there is no such profile, it is not valid, or edits would be lost.
        DataError: a corpus is missing.
        ResourceError: the features cannot fit on the disk.
    """
    params, plan = params_from(profile_text(name), f"profile {name}"), None
    if not force:
        _check_replaceable()
    manifests: dict[str, pa.Table] = {}
    missing: list[str] = []
    if data is not None:
        for corpus in (each for each in params.corpora if each not in params.demo):
            manifest = _listed(params, corpus, data, reporter)
            if manifest is None:
                missing.append(corpus)
            else:
                manifests[corpus] = manifest if limit is None else limited(manifest, limit)
        _check_missing(missing, params, skip_missing=skip_missing)
        params = params_from(profile_text(name, missing), f"profile {name}")
        plan = Plan.of(params, {corpus: len(manifest) for corpus, manifest in manifests.items()})
        plan.check_room()
    with all_or_none() as partial:
        for corpus, manifest in manifests.items():
            write_manifest(manifest, partial(workspace.manifest(corpus)))
        partial(workspace.PARAMS).write_text(profile_text(name, missing), encoding="utf-8", newline="")
        if data is not None:
            partial(workspace.DATA_ROOT).write_text(str(data.absolute()), encoding="utf-8")
    return params, plan


def next_steps(name: str, params: Params) -> list[str]:
    """Return what is to do before the study can run, in order, and how to run it; one line each."""
    unlisted = [name for name in params.corpora if name not in params.demo and not workspace.manifest(name).exists()]
    backbone, weights = BACKBONES[params.extract.backbone], params.extract.weights
    steps = []
    if unlisted:
        steps.append(
            f"list the images of {', '.join(unlisted)}: `ltdpipe profile use {name} --data ROOT`, where ROOT "
            "holds their folders (docs/data.md says where to get them)"
        )
    if weights == "default" and backbone.library != "demo":
        from stages.extract.weights import present_weights

        if present_weights(backbone) is None:
            steps.append(
                f"get the weights of {backbone.name}, which are not on this machine: `ltdpipe fetch "
                f"{backbone.name}`, or name a local file in `extract.weights`"
            )
    elif weights != "default" and not weights.startswith("random:") and not Path(weights).exists():
        steps.append(f"put the weights file {weights} there, which `extract.weights` names")
    return [*steps, "run the study: `dvc repro`"]


def _listed(params: Params, name: str, data: Path, reporter: Reporter) -> pa.Table | None:
    """List a corpus below ``data`` as ``ltdpipe scan`` does, and note what a user should know before trusting numbers.

    Returns:
        Its images; None where nothing was found.
    """
    try:
        manifest, summary = scan(**workspace.study_corpus(params, name, data).listing, reporter=reporter)
    except DataError as error:
        reporter.note(f"{name}: not found")
        reporter.note(f"  {error}")
        return None
    reporter.note(f"{name}: {len(manifest)} images")
    corpus, findings = params.corpora[name], list(summary.warnings)
    if corpus.set_order:
        missing = [wanted for wanted in corpus.set_order if wanted not in summary.sets]
        # what is missing stands in one line, not in one for each set
        findings = [finding for finding in findings if not finding.endswith("was asked for and has no image")]
        total = len(corpus.set_order)
        lacking = f"; missing: {', '.join(missing)}" if missing else ""
        findings.insert(0, f"{total - len(missing)} of {total} sets{lacking}")
    if corpus.layout == "ufd":
        findings += _distribution(manifest)
    if name in params.evaluate.corpora:  # sizes of training images are not published
        findings += _unexpected_sizes(manifest, summary.layout)
    for finding in findings:
        reporter.note(f"  {finding}")
    return manifest


def limited(manifest: pa.Table, limit: int) -> pa.Table:
    """Return at most ``limit`` images of each class, generator, split and category, and of each group of sets.

    Which ones depends on their paths alone, so a larger limit keeps what a smaller one chose.
    """
    strata = ["label", "generator", "split", "category", "sets"]
    images = manifest.select(["path", *strata]).to_pandas()
    images["sets"] = images["sets"].map(tuple)
    images["order"] = [hashlib.sha256(path.encode()).digest() for path in images["path"]]
    chosen = images.sort_values("order").groupby(strata, dropna=False, sort=False).head(limit)
    return manifest.take(np.sort(chosen.index)).replace_schema_metadata({LIMIT_KEY: str(limit)})


def _check_replaceable() -> None:
    """Refuse to overwrite a parameter file that is no profile's and has edits which are not committed."""
    params = workspace.PARAMS
    if not params.exists() or params.read_text(encoding="utf-8") in map(profile_text, profile_names()):
        return
    committed = ["git", "show", f"HEAD:./{params.as_posix()}"]
    if subprocess.run(committed, capture_output=True, check=False).stdout != params.read_bytes():
        raise SettingError(
            f"{params} has edits that are not committed; commit them, save them as profiles/NAME.yaml, "
            "or overwrite them with --force"
        )


def _check_missing(missing: Collection[str], params: Params, *, skip_missing: bool) -> None:
    """Refuse a study that lacks a corpus which it trains on, or one that nobody said to leave out."""
    if needed := [name for name in missing if name in params.train_on]:
        raise DataError(f"training corpora not found: {', '.join(needed)}; docs/data.md says where to get each corpus")
    if missing and not skip_missing:
        raise DataError(
            f"not found: {', '.join(missing)}; docs/data.md says where to get each; --skip-missing leaves them out"
        )
    if set(params.evaluate.corpora) <= set(missing):
        raise DataError(f"none of the corpora to evaluate on is there: {', '.join(missing)}")


def _distribution(manifest: pa.Table) -> list[str]:
    """Say which of the two distributions of UFD's diffusion sets this is."""
    rows = zip(*(manifest[name].to_pylist() for name in ("path", "label", "sets")), strict=True)
    reals = [path for path, label, sets in rows if label == 0 and diffusion_sets() & set(sets)]
    shared = sum("/imagenet/" in f"/{path}" or "/laion/" in f"/{path}" for path in reals)
    if shared:
        return [f"UFD in distribution (a), the authors': its diffusion sets share {shared} real images"]
    return ["UFD in distribution (b), a re-pack: its diffusion sets have real images of their own"] if reals else []


def _unexpected_sizes(manifest: pa.Table, layout: str) -> list[str]:
    """Return one line for each test set whose size is not the published one."""
    pairs = zip(manifest["sets"].to_pylist(), manifest["label"].to_pylist(), strict=True)
    counts = Counter((name, label) for sets, label in pairs for name in sets)
    return [
        f"set {name}: {counts[name, 0]} real, {counts[name, 1]} synthetic; published: {size}"
        for name, size in published_sizes(layout).items()
        if (counts[name, 0] or counts[name, 1]) and not size.agrees(counts[name, 0], counts[name, 1])
    ]
