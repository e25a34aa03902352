"""Checks the types and values of what plugins answer, by the annotations of hooks, protocols and dataclasses.

An answer is checked deeply: items of sequences and mappings, fields of the API's dataclasses, methods of objects. A
library such as typeguard would check less of this (no fields of dataclasses, and a `str` passes as a sequence of
texts), and would take several times as long; hooks are called several times for each call of a client.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import click

from mxgw_core.api.calls import GrpcService
from mxgw_core.api.events import Action, Block, DropNewest, DropOldest, OverflowPolicy, Select, SelectEvents, Tolerate
from mxgw_core.api.hookspecs import Hooks
from mxgw_core.api.metrics import Metric
from mxgw_core.api.types import INTERNAL, Identity
from mxgw_core.printable import printable

# A longer answer is refused: it would stall the gateway, and no plugin needs it.
MOST_ITEMS = 100_000
# Only this many samples of a metric are used, and checked.
MOST_SAMPLES = 200
# How long a worker may live on without a gateway, in seconds: a year. More is a mistake.
_LONGEST_LIFE_S = 366 * 86_400
# The longest time for which a policy is allowed to delay all readers of a session because of one reader.
_LONGEST_BLOCK_S = 60.0

Check: TypeAlias = Callable[[Any], None]


class WrongAnswer(Exception):
    """A plugin answered something else than the API says. The text says what it answered and what was expected; it has
    no subject, and no values that could be secret.
    """


class _Kind(NamedTuple):
    """How one annotation is checked.

    `is_kind` says whether a value is of this kind, apart from what is in it. `inside` returns what is wrong in such a
    value: a phrase that describes the value, or "" when nothing is wrong.
    """

    is_kind: Callable[[Any], bool]
    inside: Callable[[Any], str]

    def problem(self, value: Any) -> str:
        return self.inside(value) if self.is_kind(value) else _a(value)


def check_of(annotation: Any, expected: str) -> Check:
    """Return a function that raises `WrongAnswer` for values that the annotation does not allow. `expected` describes
    the annotation.
    """
    is_kind, inside = _kind_of(annotation)

    def check(value: Any) -> None:
        problem = inside(value) if is_kind(value) else _a(value)
        if problem:
            if inspect.iscoroutine(value):
                value.close()
            raise WrongAnswer(f"returned {problem}, not {expected}")

    return check


@cache
def method_check(protocol: type, method: str) -> Check:
    """Return the check of what a method of a protocol of the API returns."""
    function = inspect.getattr_static(protocol, method)
    function = function.fget if isinstance(function, property) else function
    return check_of(typing.get_type_hints(function)["return"], function.__annotations__["return"])


def _a(value: Any) -> str:
    name = type(value).__qualname__
    if value is None:
        return "None"
    if inspect.iscoroutine(value):
        return "a coroutine (it must be a plain function, not an asynchronous one)"
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {printable(name, 80)}"


def _nothing(value: Any) -> str:
    del value
    return ""


@cache
def _kind_of(annotation: Any) -> _Kind:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in (Any, object) or isinstance(annotation, typing.TypeVar):
        return _Kind(lambda _: True, _nothing)
    if annotation in (None, type(None)):
        return _Kind(lambda value: value is None, _nothing)
    if origin in (typing.Union, types.UnionType):
        return _union([_kind_of(one) for one in arguments])
    if annotation is float:
        return _Kind(lambda value: isinstance(value, int | float) and not isinstance(value, bool), _nothing)
    if annotation is int:
        return _Kind(lambda value: isinstance(value, int) and not isinstance(value, bool), _nothing)
    if origin is collections.abc.Sequence or annotation is collections.abc.Sequence:
        return _Kind(_is_sequence, _items(_kind_of(arguments[0] if arguments else Any)))
    if origin is tuple:
        return _tuple(arguments)
    if origin is collections.abc.Mapping:
        return _Kind(lambda value: isinstance(value, Mapping), _entries(*map(_kind_of, arguments)))
    if origin is collections.abc.Callable:
        return _Kind(callable, lambda value: _mistake_in_function(value, len(arguments[0])))
    found = origin if isinstance(origin, type) else annotation
    if getattr(found, "_is_protocol", False):
        return _Kind(lambda value: value is not None, lambda value: _mistake_in_object(found, value))
    if dataclasses.is_dataclass(found) and isinstance(found, type):
        return _Kind(lambda value: isinstance(value, found), _fields(found))
    return _Kind(lambda value: isinstance(value, found), _nothing)


def _union(options: Sequence[_Kind]) -> _Kind:
    def inside(value: Any) -> str:
        problem = ""
        for is_kind, look_inside in options:
            if is_kind(value):
                problem = look_inside(value)
                if not problem:
                    return ""
        return problem

    return _Kind(lambda value: any(is_kind(value) for is_kind, _ in options), inside)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview)


def _items(kind: _Kind, most: int | None = None) -> Callable[[Any], str]:
    def inside(value: Sequence[Any]) -> str:
        if most is None and len(value) > MOST_ITEMS:
            return f"{_a(value)} with {len(value)} items, more than {MOST_ITEMS}"
        for index, item in enumerate(value):
            if index == most:
                break
            if problem := kind.problem(item):
                return f"{_a(value)} whose item {index} is {problem}"
        return ""

    return inside


def _tuple(arguments: Sequence[Any]) -> _Kind:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return _Kind(lambda value: isinstance(value, tuple), _items(_kind_of(arguments[0])))
    kinds = [_kind_of(one) for one in arguments]

    def inside(value: tuple[Any, ...]) -> str:
        if len(value) != len(kinds):
            return f"a tuple of {len(value)}"
        return next(
            (
                f"a tuple whose item {index} is {problem}"
                for index, (kind, item) in enumerate(zip(kinds, value, strict=True))
                if (problem := kind.problem(item))
            ),
            "",
        )

    return _Kind(lambda value: isinstance(value, tuple), inside)


def _entries(keys: _Kind, values: _Kind) -> Callable[[Any], str]:
    def inside(mapping: Mapping[Any, Any]) -> str:
        for key, value in mapping.items():
            if problem := keys.problem(key):
                return f"{_a(mapping)} with a key that is {problem}"
            if problem := values.problem(value):
                return f"{_a(mapping)} with a value that is {problem}"
        return ""

    return inside


def _fields(found: type) -> Callable[[Any], str]:
    # Looked up at the first use, because dataclasses can refer to each other.
    kinds: list[tuple[str, _Kind]] = []
    value_problem = _VALUES.get(found, _nothing)

    def inside(value: Any) -> str:
        if not kinds:
            hints = typing.get_type_hints(found)
            for field in dataclasses.fields(found):
                kind = _kind_of(hints[field.name])
                if (found, field.name) == (Metric, "samples"):
                    kind = _Kind(_is_sequence, _items(_kind_of(typing.get_args(hints["samples"])[0]), MOST_SAMPLES))
                kinds.append((field.name, kind))
        for name, (is_kind, look_inside) in kinds:
            field = getattr(value, name)
            problem = look_inside(field) if is_kind(field) else _a(field)
            if problem:
                return f"{_a(value)} whose {name} is {problem}"
        problem = value_problem(value)
        return f"{_a(value)} {problem}" if problem else ""

    return inside


# The next functions check objects with methods, and functions.

# Key: the class of an object, and a protocol. Value: what is wrong with the methods of the class.
_known_classes: dict[tuple[type, type], str] = {}


def _mistake_in_object(protocol: type, value: Any) -> str:
    """Return what is wrong with an object that must implement a protocol; "" when nothing is wrong."""
    key = type(value), protocol
    if (known := _known_classes.get(key)) is not None:
        return known
    problem, is_of_class = "", True
    for name in _members(protocol):
        wanted = inspect.getattr_static(protocol, name, None)
        is_of_class = is_of_class and inspect.getattr_static(type(value), name, None) is not None
        if not inspect.isfunction(wanted):
            # First without running code of the object: a property can raise.
            is_there = inspect.getattr_static(value, name, None) is not None or hasattr(value, name)
            problem = "" if is_there else f"without {name}"
        elif not callable(method := getattr(value, name, None)):
            problem = f"without the method {name}"
        elif protocol is OverflowPolicy:
            problem = ""  # `PolicyGuard` replaces a policy whose calls fail, for each subscriber
        elif inspect.iscoroutinefunction(method) and not inspect.iscoroutinefunction(wanted):
            problem = f"whose method {name} is asynchronous"
            if typing.get_origin(typing.get_type_hints(wanted).get("return")) is collections.abc.AsyncIterator:
                problem = f"whose method {name} is no async generator: it has no `yield`"
        else:
            arguments = len(inspect.signature(wanted).parameters) - 1
            problem = f"whose method {name} does not take {arguments} arguments" * (not _takes(method, arguments))
        if problem:
            problem = f"{_a(value)} {problem}"
            break
    if is_of_class:
        _known_classes[key] = problem
    return problem


@cache
def _members(protocol: type) -> Sequence[str]:
    # Source: PEP 544; in the order of the class, which is easier to read in a message.
    return [
        name
        for base in protocol.__mro__
        if getattr(base, "_is_protocol", False) and base is not typing.Protocol
        for name in (*vars(base), *vars(base).get("__annotations__", {}))
        if not name.startswith("_")
    ]


def has_members(value: object, protocol: type) -> bool:
    """Return whether an object has the members of a protocol. Unlike `isinstance`, this runs no code of the object."""
    return all(inspect.getattr_static(value, name, None) is not None for name in _members(protocol))


def _mistake_in_function(function: Any, arguments: int) -> str:
    if inspect.iscoroutinefunction(function):
        return "an asynchronous function"
    return "" if _takes(function, arguments) else f"a function that does not take {arguments} arguments"


def _takes(function: Any, arguments: int) -> bool:
    try:
        inspect.signature(function).bind(*[None] * arguments)
    except TypeError:
        return False
    except ValueError:  # a function of C does not always tell its parameters
        return True
    return True


# The rest of the module checks values that a type does not tell.


def _problem_of_identity(identity: Identity) -> str:
    if not identity.id or not identity.kind:
        return "without id or kind"
    return "of the kind of the gateway itself" if identity.kind == INTERNAL.kind else ""


def _problem_of_service(service: GrpcService) -> str:
    name = service.descriptor.full_name
    known = {method.name for method in service.descriptor.methods}
    if unknown := sorted(service.scopes.keys() - known):
        return f"whose scopes name {printable(unknown[0], 80)}, which {name} does not have"
    for method in service.descriptor.methods:
        if method.client_streaming:
            return f"whose method {method.name} streams from the client, which is not supported"
        function = getattr(service.implementation, method.name, None)
        if not callable(function):
            return f"whose implementation lacks the method {method.name} of {name}"
        arguments = 3 if method.server_streaming else 2
        if not _takes(function, arguments):
            return f"whose method {method.name} does not take {arguments} arguments"
    return ""


def _wrong_value(field: str, value: float, most: float = math.inf) -> str:
    if 0 <= value <= most and value < math.inf:  # this is false for NaN too
        return ""
    limit = "0 or more, and finite" if most == math.inf else f"from 0 to {most:g}"
    return f"whose {field} is {value}; it must be {limit}"


# What is wrong with the values of a dataclass: a phrase that follows its name, or "".
_VALUES: Mapping[type, Callable[[Any], str]] = {
    Identity: _problem_of_identity,
    GrpcService: _problem_of_service,
    DropOldest: lambda action: _wrong_value("keep_events", action.keep_events),
    DropNewest: lambda action: _wrong_value("resume_below_events", action.resume_below_events),
    Tolerate: lambda action: _wrong_value("recheck_s", action.recheck_s),
    Block: lambda action: _wrong_value("timeout_s", action.timeout_s, _LONGEST_BLOCK_S),
}

# What is wrong with an action of an overflow policy: a phrase, or "". Only the actions with fields are here.
_OF_ACTIONS: Mapping[type, Callable[[Any], str]] = {
    **{kind: _fields(kind) for kind in (DropOldest, DropNewest, Tolerate, Block)},
    # How many arguments `keep` takes is seen when it is called: to look at its signature would take longer.
    **{kind: lambda action: _wrong_keep(action.keep) for kind in (Select, SelectEvents)},
}


def _wrong_keep(keep: object) -> str:
    return "" if callable(keep) else f"an action whose keep is {_a(keep)}"


def problem_of_action(action: Action) -> str:
    """Return a phrase that says what is wrong with an action of an overflow policy; "" when nothing is wrong."""
    inside = _OF_ACTIONS.get(type(action))
    if inside is None:  # it has no fields, or is of a class that a plugin has derived from an action
        inside = next((_OF_ACTIONS[kind] for kind in _OF_ACTIONS if isinstance(action, kind)), _nothing)
    return inside(action)


def _wrong_seconds(seconds: float, most: float) -> str:
    if 0 <= seconds <= most:  # this is false for NaN too
        return ""
    limit = "0 or more" if most == math.inf else f"from 0 to {most:.0f}"
    return f"{seconds} s; it must be {limit}"


def _wrong_commands(commands: Sequence[click.Command]) -> str:
    for index, command in enumerate(commands):
        if not isinstance(command.name, str) or not command.name.strip():
            return f"commands of which number {index} has no name"
    return ""


# What is wrong with an answer of a hook, which depends on the arguments of the hook: a phrase, or "".
_OF_HOOKS: Mapping[str, Callable[[Any, Mapping[str, Any]], str]] = {
    "mxgw_detach_grace": lambda grace_s, _: _wrong_seconds(grace_s, math.inf),
    "mxgw_orphan_lifetime": lambda lifetime_s, _: _wrong_seconds(lifetime_s, _LONGEST_LIFE_S),
    "mxgw_audit_tail": lambda entries, arguments: (
        f"{len(entries)} entries; the limit was {arguments['limit']}" if len(entries) > arguments["limit"] else ""
    ),
    "mxgw_cli": lambda commands, _: _wrong_commands(commands),
}


# In the answers of these hooks, a wrong item is left out, and the others are used. Whoever uses them checks the items.
_CHECKED_LATER: Mapping[str, Any] = {"mxgw_metrics": Sequence[Any] | None}


def _check_of_hook(name: str) -> Callable[[Any, Mapping[str, Any]], None]:
    hook = getattr(Hooks, name)
    annotation = _CHECKED_LATER.get(name) or typing.get_type_hints(hook)["return"]
    check = check_of(annotation, hook.__annotations__["return"])
    problem_of = _OF_HOOKS.get(name)
    if problem_of is None:
        return lambda value, _: check(value)

    def check_with_arguments(value: Any, arguments: Mapping[str, Any]) -> None:
        check(value)
        if problem := problem_of(value, arguments):
            raise WrongAnswer(f"returned {problem}")

    return check_with_arguments


# Key: a hook. Value: the check of its answers, which also gets the arguments of the hook. It raises `WrongAnswer`.
ANSWERS: Mapping[str, Callable[[Any, Mapping[str, Any]], None]] = {
    name: _check_of_hook(name) for name in vars(Hooks) if name.startswith("mxgw_")
}
