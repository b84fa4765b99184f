"""What a user wrote -> validated settings, or one line for each fault in the user's words."""

from __future__ import annotations

import difflib
import types
from io import StringIO
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from storage.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Sequence

Settings = TypeVar("Settings")

# A name becomes a file name and a DVC stage name.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"

_MAPPING = "expected a mapping of keys to values"
# Kind of a fault as pydantic names it -> the same in a user's words.
_MESSAGES = {
    "missing": "this key is missing",
    "union_tag_invalid": "unknown type {tag!r}; allowed: {expected_tags}",
    "union_tag_not_found": "the key `type` is missing",
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "dict_type": _MAPPING,
    "tuple_type": "expected a list",
    "too_short": "expected at least {min_length}, found none",
}


def load_yaml(text: str, source: str) -> Any:
    """Return what a YAML 1.2 text holds, read as DVC reads it: 010 is ten, 0o10 eight, 1e-4 a number, yes a word.

    Raises:
        SettingError: it is no YAML, or a key stands in it twice; the message names the ``source``.
    """
    try:
        return YAML(typ="safe", pure=True).load(StringIO(text))
    except DuplicateKeyError as error:
        problem = str(error.problem).partition(" with value")[0]
        lines = [mark.line + 1 for mark in (error.context_mark, error.problem_mark) if mark is not None]
        message = f"{problem}, in line {lines[-1]}; the mapping begins in line {lines[0]}"
        raise SettingError(f"{source} is no valid YAML: {message}") from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f", in line {mark.line + 1}, column {mark.column + 1}"
        raise SettingError(f"{source} is no valid YAML: {error.problem or error.context}{line}") from error
    except (YAMLError, ValueError) as error:
        raise SettingError(f"{source} is no valid YAML: {' '.join(str(error).split())}") from error


def settings_from(model: type[Settings], values: object, *, source: str = "") -> Settings:
    """Validate settings.

    Args:
        model: a model of settings, or a union of models that are told apart by their ``type``.
        values: as read from YAML or given as options.
        source: how the line of each fault begins.

    Raises:
        SettingError: something in them is wrong; one line for each fault: the key, what is wrong, what is allowed.
    """
    try:
        return TypeAdapter(model).validate_python(values)
    except ValidationError as error:
        faults = [fault for fault in error.errors() if not _follows_from_another(fault)]
        raise SettingError("\n".join(source + _explain(fault, model, values) for fault in faults)) from error


def _follows_from_another(fault: Any) -> bool:
    """Whether a fault of a list only follows from a fault of one of its items."""
    too_short = fault["type"] == "too_short" and len(fault["input"]) > fault["ctx"]["actual_length"]
    no_text = fault["type"] == "string_type" and fault["loc"][-1:] == ("str",) and isinstance(fault["input"], list)
    return bool(too_short or no_text)


def _explain(fault: Any, model: object, values: object) -> str:
    key, kind, value = _key(fault, values), fault["type"], fault["input"]
    message = fault["msg"].removeprefix("Value error, ")
    found = "" if isinstance(value, (dict, BaseModel)) else f", found {value!r}"
    if kind == "value_error" and (isinstance(value, (list, tuple)) or repr(value) in message):
        found = ""  # the message names it
    elif kind == "extra_forbidden":
        allowed = _allowed_keys(model, fault["loc"])
        near = difflib.get_close_matches(str(fault["loc"][-1]), allowed, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        message, found = f"unknown key; {hint}allowed: {', '.join(allowed)}", ""
    elif kind == "string_pattern_mismatch" and fault["ctx"]["pattern"] == NAME_PATTERN:
        message = "a name holds letters, digits, - and _ only"
    elif kind in _MESSAGES:
        message = _MESSAGES[kind].format(**fault.get("ctx", {}))
        found = "" if kind in {"missing", "too_short"} else found
    return f"{key}: {message[0].lower()}{message[1:]}{found}" if key else f"{message}{found}"


def _key(fault: Any, values: object) -> str:
    """The key of the file that a fault is about; pydantic puts the members of a union between the keys."""
    keys: list[str] = []
    here: Any = values
    for part in fault["loc"]:
        if (isinstance(here, dict) and part in here) or (isinstance(here, list) and isinstance(part, int)):
            keys.append(str(part))
            here = here[part]
    return ".".join([*keys, *map(str, fault["loc"][-1:])] if fault["type"] == "missing" else keys)


def _allowed_keys(model: object, location: Sequence[int | str]) -> list[str]:
    """The keys that are allowed where an unknown one was found."""
    here: Any = model
    for part in (*location[:-1], None):
        while get_origin(here) is Annotated:
            here = get_args(here)[0]
        if get_origin(here) in {Union, types.UnionType}:  # models that are told apart by their `type`
            here = next(member for member in get_args(here) if member.model_fields["type"].default == part)
        elif get_origin(here) is dict:
            here = get_args(here)[-1]
        elif part is not None:
            here = here.model_fields[str(part)].annotation
    return sorted(here.model_fields)
