"""What plugins get: copies, so that nothing that one plugin changes reaches the gateway or another plugin.

This protects from mistakes. Plugins run inside the gateway, so nothing could protect it from a plugin that is hostile.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any, Protocol, TypeVar, runtime_checkable

from google.protobuf.message import Message

from mxgw_core.api.access import AccessRequest

_T = TypeVar("_T")
_M = TypeVar("_M", bound=Message)


@runtime_checkable
class HasCopies(Protocol):
    """An argument of which each plugin gets an object of its own."""

    def copy_for(self, plugin: str) -> object:
        """Return the object of a plugin."""


def copied(argument: Any, plugin: str = "") -> Any:
    """Return what a plugin gets for an argument of a hook: a copy of a dataclass or a mapping, with copies of the
    mappings in it; its own object of what is `HasCopies`; anything else as it is.
    """
    kind = type(argument)
    way = _ways.get(kind)
    if way is None:
        if isinstance(argument, HasCopies):
            return argument.copy_for(plugin)
        way = _ways[kind] = _way_of(kind)
    return way(argument)


def own_copy(message: _M) -> _M:
    """Return a copy of a message."""
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


class _CopiedRequest(AccessRequest):
    """An `AccessRequest` whose `request` is copied only when the plugin looks at it: most plugins do not."""

    @cached_property
    def request(self) -> Message | None:
        original: Message | None = self.__dict__["_original"]
        return None if original is None else own_copy(original)


# Key: the class of an argument. Value: what copies it.
_ways: dict[type, Callable[[Any], Any]] = {}


def _way_of(kind: type) -> Callable[[Any], Any]:
    if issubclass(kind, AccessRequest):
        return _copied_request
    if dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        return _copier(tuple(field.name for field in dataclasses.fields(kind)))
    if issubclass(kind, Mapping):
        return _read_only
    return _as_it_is


def _copied_request(request: AccessRequest) -> AccessRequest:
    own = object.__new__(_CopiedRequest)
    known = vars(request)
    vars(own).update(known, identity=copied(request.identity), _original=known.get("request"))
    if request.items is not None:
        vars(own)["items"] = tuple(request.items)
    for computed in ("request", "session"):
        vars(own).pop(computed, None)
    return own


def _copier(names: tuple[str, ...]) -> Callable[[_T], _T]:
    set_field = object.__setattr__

    def copy_of(value: _T) -> _T:
        copy = object.__new__(type(value))
        for name in names:
            field = getattr(value, name)
            set_field(copy, name, _read_only(field) if isinstance(field, dict) else field)
        return copy

    return copy_of


def _read_only(mapping: Mapping[Any, Any]) -> Mapping[Any, Any]:
    return MappingProxyType(dict(mapping))


def _as_it_is(argument: _T) -> _T:
    return argument
