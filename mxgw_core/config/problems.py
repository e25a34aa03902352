"""Turns problems of settings into sentences for the person who has to correct them."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, time
from pathlib import PurePath
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from mxgw_core.config.files import Path
from mxgw_core.config.models import SettingsConflict
from mxgw_core.config.secrets import is_secret_key

_NO_TABLE = frozenset({"model_type", "dict_type", "model_attributes_type", "dataclass_type"})
_SUBJECT = re.compile(r"^[A-Z]\w* should ")

ModelT = TypeVar("ModelT", bound=BaseModel)


def validated(model: type[ModelT], data: Mapping[str, Any]) -> ModelT:
    """Validate plain data, such as the content of a TOML file, and return it as an object of the class `model`.

    Types are checked strictly: "5" is not accepted for a number, and 1 is not accepted for a truth value. A list is
    accepted for a tuple, a text for a path or an enum, and a whole number for a float.

    Raises:
        ValidationError: the data does not fit the model.
    """
    return model.model_validate_json(json.dumps(data, default=_plain), strict=True)


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that is most similar to `word`; None when no candidate is similar."""
    by_fold = {candidate.casefold(): candidate for candidate in candidates}
    close = difflib.get_close_matches(word.casefold(), by_fold, n=1, cutoff=0.6)
    return by_fold[close[0]] if close else None


def unknown(word: str, candidates: Iterable[str], noun: str = "key") -> str:
    """Return the sentence that reports an unknown name, with the most similar candidate or all candidates."""
    candidates = tuple(candidates)
    if (match := nearest(word, candidates)) is not None:
        return f"unknown {noun}; did you mean {match!r}?"
    if candidates:
        return f"unknown {noun}; valid are: {', '.join(sorted(candidates))}"
    return f"unknown {noun}"


def validation_problems(
    error: ValidationError,
    *,
    declaration: Callable[[Path], FieldInfo | None],
    describe_unknown: Callable[[Path], str],
    file_path: Callable[[tuple[int | str, ...]], Path],
    place: Callable[[Path], str],
) -> list[str]:
    """Return one line per problem, with the place, the key and the reason.

    Args:
        declaration: returns the declaration of a key; None when no model declares the key. The line shows a wrong value
            only if the key is declared and is not a secret.
        describe_unknown: returns the sentence that reports an unknown key.
        file_path: turns a location that pydantic reports into a key of the file.
        place: returns where a key was set.
    """
    lines = []
    found = error.errors(include_url=False)
    for details in found:
        if isinstance(conflict := details.get("ctx", {}).get("error"), SettingsConflict):
            lines += [f"{place(path)}: {'.'.join(path)}: {text}" for path, text in conflict.problems]
            continue
        if details["type"] == "too_short" and any(_is_inside(other["loc"], details["loc"]) for other in found):
            # pydantic counts only the valid entries of a list, so it also reports a list with an invalid entry as too
            # short.
            continue
        path = file_path(details["loc"])
        reason = (
            describe_unknown(path)
            if details["type"] == "extra_forbidden" or (details["type"] in _NO_TABLE and _is_misplaced(path))
            else _reason(details, path, declaration(path))
        )
        lines.append(f"{place(path)}: {'.'.join(path) or 'settings'}: {reason}")
    return lines


def _is_inside(location: tuple[int | str, ...], outer: tuple[int | str, ...]) -> bool:
    return len(location) > len(outer) and location[: len(outer)] == outer


def _is_misplaced(path: Path) -> bool:
    # The section `backends` contains only the key `default` and named tables. So any other key with a plain value is
    # probably a misspelled key, and not a table of a wrong type.
    return len(path) == 2 and path[0] == "backends"


def _reason(details: ErrorDetails, path: Path, field: FieldInfo | None) -> str:
    if details["type"] == "missing":
        return "is required"
    if details["type"] in _NO_TABLE:
        return "must be a table"
    if details["type"] in ("tuple_type", "list_type"):
        return "must be a list"
    if details["type"] == "too_short":
        return f"must have at least {details['ctx']['min_length']} item(s)"
    text = _SUBJECT.sub("must ", details["msg"].removeprefix("Value error, "))
    value = details["input"]
    if field is None or "Secret" in repr(field.annotation) or is_secret_key(".".join(path)):
        return text
    if not isinstance(value, str | int | float):
        return text
    shown = json.dumps(value, ensure_ascii=True)
    return f"{text} (is {shown if len(shown) <= 60 else shown[:57] + '...'})"


def _plain(value: object) -> str:
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"settings cannot hold a {type(value).__name__}")
