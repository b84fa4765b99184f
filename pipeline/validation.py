"""What a user wrote -> validated settings, or one line a fault in the user's words."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from storage.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Sequence

Settings = TypeVar("Settings", bound=BaseModel)

# A name becomes a file name and a DVC stage name.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"


class _YamlNumbers(yaml.SafeLoader):
    """The safe loader, to which 1e-4 is a number, as to people and DVC; YAML 1.1 asks for 1.0e-4."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that stands twice: DVC does, and the last value would silently be the one that counts."""
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                continue  # no setting has such a key; validation says so
            if key.value in lines:
                raise yaml.YAMLError(f"the key {key.value!r} stands in line {lines[key.value]} and in line {line}")
            lines[key.value] = line
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Refuse numbers that YAML 1.1 reads to another base than YAML 1.2, with which DVC reads."""
        if re.match(r"[-+]?0[0-9_]|.*:", node.value):
            raise yaml.YAMLError(
                f"the number {node.value} in line {node.start_mark.line + 1} has more than one reading; write it in "
                "decimal digits, without a leading zero or a colon"
            )
        return super().construct_yaml_int(node)


_YamlNumbers.add_constructor("tag:yaml.org,2002:int", _YamlNumbers.construct_yaml_int)
_YamlNumbers.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def load_yaml(text: str, source: str) -> Any:
    """Return what a YAML text holds.

    Raises:
        SettingError: it is no YAML; the message names the ``source``.
    """
    try:
        return yaml.load(text, _YamlNumbers)  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        raise SettingError(f"{source} is no valid YAML: {' '.join(str(error).split())}") from error


def parsed_assignment(assignment: str, option: str) -> tuple[str, Any]:
    """Return key and value of an option's ``KEY=VALUE``; the value is YAML.

    Raises:
        SettingError: it is not of this form.
    """
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise SettingError(f"{option} {assignment!r}: expected KEY=VALUE, as in lr=1e-4")
    return key, load_yaml(text, f"{option} {assignment!r}: {text!r}")


def settings_from(model: type[Settings], values: object, *, source: str = "") -> Settings:
    """Validate the settings of one model.

    Args:
        model: which settings.
        values: as read from YAML or given as options.
        source: what each line of a fault begins with.

    Raises:
        SettingError: something in them is wrong; one line a fault: the key, what is wrong, what is allowed.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults = [fault for fault in error.errors() if not _follows(fault)]
        raise SettingError("\n".join(source + _explain(fault, model, values) for fault in faults)) from error


def _follows(fault: Any) -> bool:
    """Whether a fault only follows from another one, of an item of the list that was given."""
    too_short = fault["type"] == "too_short" and len(fault["input"]) > fault["ctx"]["actual_length"]
    no_text = fault["type"] == "string_type" and fault["loc"][-1:] == ("str",) and isinstance(fault["input"], list)
    return bool(too_short or no_text)


def _explain(fault: Any, model: type[BaseModel], values: object) -> str:
    place = _key(fault, values)
    kind, message = fault["type"], fault["msg"].removeprefix("Value error, ")
    context = fault.get("ctx", {})
    value = fault["input"]
    found = "" if isinstance(value, (dict, BaseModel)) else f", found {value!r}"
    if kind == "value_error" and (isinstance(value, (list, tuple)) or repr(value) in message):
        found = ""  # the message names it
    elif kind == "extra_forbidden":
        allowed = sorted(_fields(model, fault["loc"]))
        near = difflib.get_close_matches(str(fault["loc"][-1]), allowed, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        message, found = f"unknown key; {hint}allowed: {', '.join(allowed)}", ""
    elif kind == "missing":
        message, found = "this key is missing", ""
    elif kind == "union_tag_invalid":
        message = f"unknown type {context['tag']!r}; allowed: {context['expected_tags']}"
    elif kind == "union_tag_not_found":
        message = "the key `type` is missing"
    elif kind == "string_pattern_mismatch" and context["pattern"] == NAME_PATTERN:
        message = "a name holds letters, digits, - and _ only"
    elif kind in {"model_type", "model_attributes_type", "dict_type"}:
        message = "expected a mapping of keys to values"
    elif kind == "tuple_type":
        message = "expected a list"
    elif kind == "too_short":
        message, found = f"expected at least {context['min_length']}", ", found none"
    return f"{place}: {message[0].lower()}{message[1:]}{found}" if place else f"{message}{found}"


def _key(fault: Any, values: object) -> str:
    """The key of the file that a fault is about; pydantic puts the members of a union between the keys."""
    keys: list[str] = []
    here: Any = values
    for part in fault["loc"]:
        if (isinstance(here, dict) and part in here) or (isinstance(here, list) and isinstance(part, int)):
            keys.append(str(part))
            here = here[part]
    return ".".join([*keys, *map(str, fault["loc"][-1:])] if fault["type"] == "missing" else keys)


def _fields(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """The keys that are allowed where an unknown one was found."""
    here: Any = model
    for part in location[:-1]:
        while get_origin(here) is Annotated:
            here = get_args(here)[0]
        members = get_args(here)
        if isinstance(here, type) and issubclass(here, BaseModel):
            here = here.model_fields[str(part)].annotation
        elif get_origin(here) is dict:
            here = members[-1]
        else:  # models that are told apart by their `type`
            here = next(member for member in members if member.model_fields["type"].default == part)
    return list(here.model_fields)
