"""What pyproject.toml declares is what the code imports."""

import re
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
from test_dvc_graph import imported

from running import PROJECT

DECLARED = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
# Declared and not imported: run as a command, or used by another one where it is there.
BESIDE = {
    "dvc",
    "ruamel.yaml.clib",
    "import-linter",
    "mkdocs-material",
    "mypy",
    "pandas",
    "pandas-stubs",
    "pytest-xdist",
    "ruff",
    "types-pyyaml",
}
DISTRIBUTIONS = packages_distributions()


def names(requirements):
    return {re.split(r"[\[<>=]", requirement)[0].lower().replace("_", "-") for requirement in requirements}


def libraries(*folders):
    """What is installed for the modules that files below these folders import."""
    files = [file for folder in folders for file in (PROJECT / folder).rglob("*.py")]
    modules = {name.partition(".")[0] for file in files for name in imported(file)} - set(sys.stdlib_module_names)
    distributions = [name for module in modules for name in DISTRIBUTIONS.get(module, [])]
    return names(distributions) - {"ltdpipe"}


PRODUCT = ("pipeline", "stages", "storage")
DEVELOPMENT = (*PRODUCT, "tests", "benchmarks", "docs")


@pytest.mark.parametrize(("folders", "extra"), [(PRODUCT, []), (DEVELOPMENT, DECLARED["optional-dependencies"]["dev"])])
def test_what_is_imported_is_declared_and_the_other_way_round(folders, extra):
    assert libraries(*folders) - BESIDE == names(DECLARED["dependencies"] + extra) - BESIDE
