"""Names of files, sets and heads are data: how to show them so that nothing obeys them."""

from __future__ import annotations

import re

from storage.names import printable

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\char34{}",  # \textquotedbl is not in every encoding
    "±": r"$\pm$",
    "[": "{[}",
    "]": "{]}",
}


def markdown(text: str) -> str:
    """Make text inert in a Markdown table cell: no markup, no HTML, no end of cell or line."""
    escaped = re.sub(r"([\\`*_\[\]|~#!])", r"\\\1", printable(" ".join(text.split())))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def latex(text: str) -> str:
    """Make text inert in a LaTeX table cell: no command, no end of cell or line, no optional argument."""
    return "".join(_LATEX.get(char, char) for char in printable(" ".join(text.split()))).replace("--", "-{}-")
