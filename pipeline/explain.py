"""Validation errors in the user's words: one line a fault, with the key's path and what is allowed there."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import ValidationError

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"


def explain(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Turn a validation error into one line a fault: ``key.path: what is wrong; what is allowed``."""
    return [_explain_one(fault, model) for fault in error.errors() if not _follows(fault)]


def _follows(fault: Any) -> bool:
    """Whether a fault only follows from another: a list is too short because one of its items is wrong."""
    return bool(fault["type"] == "too_short" and len(fault["input"]) > fault["ctx"]["actual_length"])


def _explain_one(fault: Any, model: type[BaseModel]) -> str:
    location, holder = _trace(model, fault["loc"])
    kind, message = fault["type"], fault["msg"].removeprefix("Value error, ")
    context = fault.get("ctx", {})
    found = "" if isinstance(fault["input"], (dict, BaseModel)) else f", found {fault['input']!r}"
    if kind == "extra_forbidden":
        allowed = sorted(holder.model_fields)
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
    return f"{location}: {message[0].lower()}{message[1:]}{found}" if location else f"{message}{found}"


def _trace(model: type[BaseModel], location: Sequence[int | str]) -> tuple[str, Any]:
    """Return the key of the file that an error's location means, and the annotation of what holds that key.

    pydantic also puts the members of a union into the location, which are no keys of the file.
    """
    keys: list[str] = []
    holder: Any = model
    here: Any = model
    for part in location:
        variant = _variant(here, part)
        if variant is not None:
            here = variant
        elif _holds_keys(here) and part != "[key]":
            keys.append(str(part))
            holder, here = here, _step(here, part)
    return ".".join(keys), holder


def _holds_keys(annotation: Any) -> bool:
    annotation = _strip(annotation)
    return get_origin(annotation) in (dict, tuple) or (
        isinstance(annotation, type) and issubclass(annotation, BaseModel)
    )


def _strip(annotation: Any) -> Any:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def _variant(annotation: Any, tag: int | str) -> type[BaseModel] | None:
    """The member of a union of models that are told apart by ``type``, or None where this is no such union."""
    for member in get_args(_strip(annotation)):
        kind = member.model_fields.get("type") if isinstance(member, type) and issubclass(member, BaseModel) else None
        if kind is not None and kind.default == tag:
            variant: type[BaseModel] = member
            return variant
    return None


def _step(annotation: Any, part: int | str) -> Any:
    """The annotation one level down: a field of a model, or a value of a dict or a sequence."""
    annotation = _strip(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(part))
        if field is None:
            return None
        return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    arguments = get_args(annotation)
    return arguments[-1] if get_origin(annotation) is dict else arguments[0] if arguments else None
