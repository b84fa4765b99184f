"""Write the parts of docs/ that the code knows: the commands, and the lists, protocols and sizes of protocols.yaml.

Run in the project's folder: ``python docs/generate.py``. A part stands between ``<!-- NAME -->`` and ``<!-- end -->``;
tests/pipeline/test_docs.py fails while a page differs from what this would write.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
import yaml

from pipeline.cli import ltdpipe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

DOCS = Path(__file__).parent
PROTOCOLS = yaml.safe_load((DOCS.parent / "stages" / "scan" / "protocols.yaml").read_text(encoding="utf-8"))


def commands() -> str:
    """Every command with its arguments and options, and the first sentence of its help."""
    return table(("command", "arguments and options", "what it does"), command_rows(ltdpipe, ""))


def command_rows(group: click.Group, prefix: str) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a group's commands, and of groups within it."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from command_rows(command, f"{prefix}{name} ")
            continue
        words = " ".join(map(spelled, command.params)).replace("|", "\\|")
        about = " ".join((command.help or "").split("\n\n")[0].split())
        yield f"`{prefix}{name}`", words and f"`{words}`", about


def spelled(parameter: click.Parameter) -> str:
    """Return an argument or option as a usage line has it."""
    kind = parameter.type
    value = parameter.metavar or (parameter.name or "").upper()
    if isinstance(kind, click.Choice):
        value = "|".join(kind.choices)
    elif isinstance(parameter, click.Option) and not parameter.metavar:
        numbers = (click.IntRange, click.FloatRange, type(click.INT), type(click.FLOAT))
        value = "N" if isinstance(kind, numbers) else "PATH" if isinstance(kind, click.Path) else value
    if isinstance(parameter, click.Argument):
        return (value if parameter.required else f"[{value}]") + ("..." if parameter.nargs < 0 else "")
    word = parameter.opts[-1] if parameter.is_flag else f"{parameter.opts[-1]} {value}"
    return word if parameter.required else f"[{word}]"


def lists() -> str:
    """The named lists of test sets, and whose they are."""
    header = ("list", "sets", "members, in table order", "geometry", "whose it is")
    return table(
        header,
        (
            (f"`{name}`", str(len(each["members"])), " ".join(each["members"]), f"`{each['geometry']}`", each["source"])
            for name, each in PROTOCOLS["lists"].items()
        ),
    )


def protocols() -> str:
    """What a protocol sets."""
    rows = [
        (f"`{protocol}`", f"`{layout}`", f"`{settings['sets']}`", f"`{settings['geometry']}`")
        for protocol, layouts in PROTOCOLS["protocols"].items()
        for layout, settings in layouts.items()
    ]
    return table(("protocol", "layout", "`sets`", "`geometry`"), rows)


def sizes() -> str:
    """Published sizes, sets of equal size in one row."""
    rows = []
    for layout, counts in PROTOCOLS["counts"].items():
        same: dict[str, list[str]] = defaultdict(list)
        for name, size in counts.items():
            same["{} real + {} synthetic".format(*size) if isinstance(size, list) else str(size)].append(name)
        rows += [(f"`{layout}`", " ".join(names), size) for size, names in same.items()]
    return table(("layout", "sets", "published images of each"), rows)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


PARTS = {
    "cli.md": {"commands": commands},
    "protocols.md": {"lists": lists, "protocols": protocols, "sizes": sizes},
}


def generated(page: str) -> str:
    """Return the text of a page with its parts as they are now."""
    text = (DOCS / page).read_text(encoding="utf-8")
    for name, make in PARTS[page].items():
        pattern = rf"(?<=<!-- {name} -->\n).*?(?=<!-- end -->)"
        text = re.sub(pattern, lambda _, part=make: f"\n{part()}\n\n", text, count=1, flags=re.S)
    return text


if __name__ == "__main__":
    for each in PARTS:
        (DOCS / each).write_text(generated(each), encoding="utf-8")
