"""Checks the types and values of what plugins answer, by the annotations of hooks, protocols and dataclasses.

An answer is checked deeply: items of sequences and mappings, fields of the API's dataclasses, methods of objects. A
library such as typeguard would check less of this (no fields of dataclasses, and a `str` passes as a sequence of
texts), and would take several times as long; hooks are called several times for each call of a client.

The gateway uses the value that a check returns, and not the answer: there, values of classes that a plugin has derived
from `str`, `float` or a dataclass of the API are replaced by plain ones. So no code of a plugin runs later, when nobody
contains it. This is one subject, and takes more than 400 lines.
"""

from __future__ import annotations

import abc
import collections.abc
import dataclasses
import inspect
import math
import operator
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import Any, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

import click
from google.protobuf.message import Message

from mxgw_core.api.calls import GrpcService
from mxgw_core.api.events import Action, Block, DropNewest, DropOldest, OverflowPolicy, Select, SelectEvents, Tolerate
from mxgw_core.api.hookspecs import Hooks
from mxgw_core.api.metrics import Metric
from mxgw_core.api.ranges import range_problem
from mxgw_core.api.types import INTERNAL, Identity
from mxgw_core.printable import printable

# A longer answer is refused: it would stall the gateway, and no plugin needs it.
MOST_ITEMS = 100_000
# Only this many samples of a metric are used. One more is checked, which shows that there are too many.
MOST_SAMPLES = 200
# The longest text of an identity, or of a metric, in characters.
_LONGEST_NAME = 1000
# How long a worker may live on without a gateway, in seconds: a year. More is a mistake.
_LONGEST_LIFE_S = 366 * 86_400
# The longest time for which a policy is allowed to delay all readers of a session because of one reader.
_LONGEST_BLOCK_S = 60.0

# Raises `WrongAnswer`, or returns the value that the gateway uses.
Check: TypeAlias = Callable[[Any], Any]


class WrongAnswer(Exception):
    """A plugin answered something else than the API says. The text says what it answered and what was expected; it has
    no subject, and no values that could be secret.
    """


class _Wrong(Exception):
    """A value is not as it must be. The text is a phrase that describes the value."""


class _Kind(NamedTuple):
    """How one annotation is checked.

    `is_kind` says whether a value is of this kind, apart from what is in it. It looks at the type of the value, because
    a plugin can override what `isinstance` sees. `plain` returns the value as the gateway uses it; when something is
    wrong in the value, it raises `_Wrong`.
    """

    is_kind: Callable[[Any], bool]
    plain: Callable[[Any], Any]

    def checked(self, value: Any) -> Any:
        if not self.is_kind(value):
            raise _Wrong(_a(value))
        return self.plain(value)


def check_of(annotation: Any, expected: str) -> Check:
    """Return a function that raises `WrongAnswer` for values that the annotation does not allow, and returns other
    values as the gateway uses them. `expected` describes the annotation.
    """
    kind = _kind_of(annotation)

    def check(value: Any) -> Any:
        try:
            return kind.checked(value)
        except _Wrong as wrong:
            if inspect.iscoroutine(value):
                value.close()
            raise WrongAnswer(f"returned {wrong}, not {expected}") from None

    return check


@cache
def method_check(protocol: type, method: str) -> Check:
    """Return the check of what a method of a protocol of the API returns."""
    function = inspect.getattr_static(protocol, method)
    function = function.fget if isinstance(function, property) else function
    return check_of(typing.get_type_hints(function)["return"], function.__annotations__["return"])


def _a(value: Any) -> str:
    name = type.__dict__["__qualname__"].__get__(type(value))  # not what a metaclass of a plugin says
    if value is None:
        return "None"
    if inspect.iscoroutine(value):
        return "a coroutine (it must be a plain function, not an asynchronous one)"
    return f"{'an' if name[:1] in 'aeiouAEIOU' else 'a'} {printable(name, 80)}"


def _as_it_is(value: Any) -> Any:
    return value


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: type(value) in kinds or issubclass(type(value), kinds)


@cache
def _kind_of(annotation: Any) -> _Kind:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in (Any, object) or isinstance(annotation, typing.TypeVar):
        return _Kind(lambda _: True, _as_it_is)
    if annotation in (None, type(None)):
        return _Kind(lambda value: value is None, _as_it_is)
    if origin in (typing.Union, types.UnionType):
        return _union([_kind_of(one) for one in arguments])
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    if origin is collections.abc.Sequence or annotation is collections.abc.Sequence:
        return _Kind(_is_sequence, _items(_kind_of(arguments[0] if arguments else Any)))
    if origin is tuple:
        return _tuple(arguments)
    if origin is collections.abc.Mapping:
        return _Kind(_is(Mapping), _entries(*map(_kind_of, arguments)))
    if origin is collections.abc.Callable:
        return _Kind(callable, lambda value: _function(value, len(arguments[0])))
    found = origin if isinstance(origin, type) else annotation
    if getattr(found, "_is_protocol", False):
        return _Kind(lambda value: value is not None, lambda value: _object(found, value))
    if dataclasses.is_dataclass(found) and isinstance(found, type):
        return _Kind(_is(found), _fields(found))
    if isinstance(found, type) and issubclass(found, Message):
        return _Kind(lambda value: type(value) is found, _as_it_is)
    if isinstance(found, type) and issubclass(found, tuple) and hasattr(found, "_fields"):
        return _Kind(_is(found), _fields(found))
    # Some classes, such as the descriptors of protobuf, say by themselves what their instances are.
    says_itself = "__instancecheck__" in vars(type(found)) and type(found) is not abc.ABCMeta
    return _Kind((lambda value: isinstance(value, found)) if says_itself else _is(found), _as_it_is)


# The next functions return plain values. They use methods of the plain classes, because derived classes can have
# others.


def _plain_int(value: int) -> int:
    number = int.__int__(value)
    if not -(1 << 63) <= number < 1 << 64:
        raise _Wrong("an int of more than 64 bits")
    return number


def _plain_number(value: float) -> float:
    return float.__float__(value) if issubclass(type(value), float) else _plain_int(value)  # type: ignore[arg-type]


def _plain_text(value: str) -> str:
    text = value if type(value) is str else str.__str__(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _Wrong("a str with half a surrogate pair, which cannot be encoded") from None
    return text


_PLAIN: Mapping[type, _Kind] = {
    bool: _Kind(_is(bool), _as_it_is),  # no class can be derived from it
    int: _Kind(lambda value: issubclass(type(value), int) and type(value) is not bool, _plain_int),
    float: _Kind(lambda value: issubclass(type(value), (int, float)) and type(value) is not bool, _plain_number),
    str: _Kind(_is(str), _plain_text),
    bytes: _Kind(_is(bytes), lambda value: bytes.__getitem__(value, slice(None))),
}


def _union(options: Sequence[_Kind]) -> _Kind:
    def plain(value: Any) -> Any:
        problem = _Wrong(_a(value))
        for kind in options:
            if kind.is_kind(value):
                try:
                    return kind.plain(value)
                except _Wrong as wrong:
                    problem = wrong
        raise problem

    return _Kind(lambda _: True, plain)


def _is_sequence(value: Any) -> bool:
    kind = type(value)
    return issubclass(kind, Sequence) and not issubclass(kind, (str, bytes, bytearray, memoryview))


def _items(kind: _Kind, most: int | None = None) -> Callable[[Any], Any]:
    """Return what checks the items of a sequence. Only the first `most` items are used, if `most` is not None."""

    def plain(value: Sequence[Any]) -> Sequence[Any]:
        if most is None and len(value) > MOST_ITEMS:
            raise _Wrong(f"{_a(value)} with {len(value)} items, more than {MOST_ITEMS}")
        found = []
        for index, item in enumerate(islice(_items_of(value), most or MOST_ITEMS + 1)):  # the length may be wrong
            try:
                found.append(kind.checked(item))
            except _Wrong as wrong:
                raise _Wrong(f"{_a(value)} whose item {index} is {wrong}") from None
        if len(found) > MOST_ITEMS:
            raise _Wrong(f"{_a(value)} with more than {MOST_ITEMS} items")
        return _same_or(value, found) if issubclass(type(value), tuple) else found

    return plain


def _same_or(value: Sequence[Any], found: Sequence[Any]) -> tuple[Any, ...]:
    """Return `value`, if it is a plain tuple of exactly the items in `found`, and otherwise a tuple of `found`."""
    is_same = type(value) is tuple and len(value) == len(found) and all(map(operator.is_, value, found))
    return value if is_same else tuple(found)  # type: ignore[return-value]  # mypy does not see what `is_same` says


def _tuple(arguments: Sequence[Any]) -> _Kind:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return _Kind(_is(tuple), _items(_kind_of(arguments[0])))
    kinds = [_kind_of(one) for one in arguments]

    def plain(value: tuple[Any, ...]) -> tuple[Any, ...]:
        items = tuple.__getitem__(value, slice(None))
        if len(items) != len(kinds):
            raise _Wrong(f"a tuple of {len(items)}")
        found = []
        for index, (kind, item) in enumerate(zip(kinds, items, strict=True)):
            try:
                found.append(kind.checked(item))
            except _Wrong as wrong:
                raise _Wrong(f"a tuple whose item {index} is {wrong}") from None
        return _same_or(value, found)

    return _Kind(_is(tuple), plain)


def _items_of(value: Any) -> Iterator[Any]:
    base = next((base for base in (list, tuple) if issubclass(type(value), base)), None)
    return base.__iter__(value) if base is not None else iter(value)


def _entries_of(mapping: Mapping[Any, Any]) -> Iterable[tuple[Any, Any]]:
    return dict.items(mapping) if issubclass(type(mapping), dict) else mapping.items()  # type: ignore[arg-type]


def _entries(keys: _Kind, values: _Kind) -> Callable[[Any], Any]:
    def plain(mapping: Mapping[Any, Any]) -> Mapping[Any, Any]:
        found = {}
        for count, (key, value) in enumerate(_entries_of(mapping)):
            if count == MOST_ITEMS:
                raise _Wrong(f"{_a(mapping)} with more than {MOST_ITEMS} entries")
            try:
                plain_key = keys.checked(key)
            except _Wrong as wrong:
                raise _Wrong(f"{_a(mapping)} with a key that is {wrong}") from None
            try:
                found[plain_key] = values.checked(value)
            except _Wrong as wrong:
                raise _Wrong(f"{_a(mapping)} with a value that is {wrong}") from None
        return found

    return plain


def _fields(found: Any) -> Callable[[Any], Any]:
    # Looked up at the first use, because dataclasses can refer to each other.
    kinds: list[tuple[str, _Kind]] = []
    value_problem = _VALUES.get(found)

    def plain(value: Any) -> Any:
        if not kinds:
            hints = typing.get_type_hints(found)
            # A type of the API is a dataclass, or a tuple with names.
            is_tuple = issubclass(found, tuple)
            for name in found._fields if is_tuple else [field.name for field in dataclasses.fields(found)]:
                kind = _kind_of(hints[name])
                if (found, name) == (Metric, "samples"):
                    item = _kind_of(typing.get_args(hints["samples"])[0])
                    kind = _Kind(_is_sequence, _items(item, MOST_SAMPLES + 1))
                kinds.append((name, kind))
        values, is_same = {}, type(value) is found
        for name, kind in kinds:
            field = getattr(value, name)
            try:
                checked = values[name] = kind.checked(field)
            except _Wrong as wrong:
                raise _Wrong(f"{_a(value)} whose {name} is {wrong}") from None
            is_same = is_same and checked is field
        # Every field is read once. From here on, `same` is used, which has no code of the plugin.
        try:
            same = value if is_same else found(**values)
        except ValueError as error:
            raise _Wrong(f"{_a(value)} with a wrong value: {printable(str(error), 200)}") from None
        if value_problem is not None and (problem := value_problem(same)):
            raise _Wrong(f"{_a(value)} {problem}")
        return same

    return plain


# The next functions check objects with methods, and functions.

# Key: the class of an object. Value: for each protocol, what is wrong with the methods of the class. The dictionary
# does not keep the class alive, because a hook can make a new class at each call.
_known_classes: WeakKeyDictionary[type, dict[type, str]] = WeakKeyDictionary()


def _object(protocol: type, value: Any) -> Any:
    if problem := _mistake_in_object(protocol, value):
        raise _Wrong(problem)
    return value


def _function(function: Any, arguments: int) -> Any:
    if problem := _mistake_in_function(function, arguments):
        raise _Wrong(problem)
    return function


def _mistake_in_object(protocol: type, value: Any) -> str:
    """Return what is wrong with an object that must implement a protocol; "" when nothing is wrong."""
    if (known := _known_classes.get(type(value), {}).get(protocol)) is not None:
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
        _known_classes.setdefault(type(value), {})[protocol] = problem
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
    if max(len(identity.id), len(identity.kind), len(identity.display_name)) > _LONGEST_NAME:
        return f"whose id, kind or display_name is longer than {_LONGEST_NAME} characters"
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


def _problem_of_metric(metric: Metric) -> str:
    texts = [metric.name, metric.text, *metric.labels, *(text for sample in metric.samples for text in sample.labels)]
    if any(len(text) > _LONGEST_NAME for text in texts):
        return f"with a text or label that is longer than {_LONGEST_NAME} characters"
    used = [sample.labels for sample in metric.samples]
    return "with several samples that have the same labels" if len(set(used)) < len(used) else ""


def _wrong_field(field: str, value: float, most: float = math.inf) -> str:
    problem = range_problem(value, most=most)
    return f"whose {field} is {problem}" if problem else ""


# What is wrong with the values of a dataclass: a phrase that follows its name, or "".
_VALUES: Mapping[type, Callable[[Any], str]] = {
    Identity: _problem_of_identity,
    Metric: _problem_of_metric,
    GrpcService: _problem_of_service,
    DropOldest: lambda action: _wrong_field("keep_events", action.keep_events),
    DropNewest: lambda action: _wrong_field("resume_below_events", action.resume_below_events),
    Tolerate: lambda action: _wrong_field("recheck_s", action.recheck_s),
    Block: lambda action: _wrong_field("timeout_s", action.timeout_s, _LONGEST_BLOCK_S),
}


def _problem_of_fields(found: type) -> Callable[[Any], str]:
    plain = _fields(found)

    def problem(value: Any) -> str:
        try:
            plain(value)
        except _Wrong as wrong:
            return str(wrong)
        return ""

    return problem


# What is wrong with an action of an overflow policy: a phrase, or "". Only the actions with fields are here.
_OF_ACTIONS: Mapping[type, Callable[[Any], str]] = {
    **{kind: _problem_of_fields(kind) for kind in (DropOldest, DropNewest, Tolerate, Block)},
    # How many arguments `keep` takes is seen when it is called: to look at its signature would take longer.
    **{kind: lambda action: _wrong_keep(action.keep) for kind in (Select, SelectEvents)},
}


def _wrong_keep(keep: object) -> str:
    return "" if callable(keep) else f"an action whose keep is {_a(keep)}"


def problem_of_action(action: Action) -> str:
    """Return a phrase that says what is wrong with an action of an overflow policy; "" when nothing is wrong."""
    inside = _OF_ACTIONS.get(type(action))
    if inside is None:  # it has no fields, or is of a class that a plugin has derived from an action
        inside = next((_OF_ACTIONS[kind] for kind in _OF_ACTIONS if issubclass(type(action), kind)), lambda _: "")
    return inside(action)


def _wrong_commands(commands: Sequence[click.Command]) -> str:
    for index, command in enumerate(commands):
        if not isinstance(command.name, str) or not command.name.strip():
            return f"commands of which number {index} has no name"
    return ""


# What is wrong with an answer of a hook, which depends on the arguments of the hook: a phrase, or "".
_OF_HOOKS: Mapping[str, Callable[[Any, Mapping[str, Any]], str]] = {
    "mxgw_detach_grace": lambda grace_s, _: "" if grace_s == math.inf else range_problem(grace_s),
    "mxgw_orphan_lifetime": lambda lifetime_s, _: range_problem(lifetime_s, most=_LONGEST_LIFE_S),
    "mxgw_audit_tail": lambda entries, arguments: (
        f"{len(entries)} entries; the limit was {arguments['limit']}" if len(entries) > arguments["limit"] else ""
    ),
    "mxgw_cli": lambda commands, _: _wrong_commands(commands),
}


# In the answers of these hooks, a wrong item is left out, and the others are used. Whoever uses them checks the items.
_CHECKED_LATER: Mapping[str, Any] = {"mxgw_metrics": Sequence[Any] | None}


def _check_of_hook(name: str) -> Callable[[Any, Mapping[str, Any]], Any]:
    hook = getattr(Hooks, name)
    annotation = _CHECKED_LATER.get(name) or typing.get_type_hints(hook)["return"]
    check = check_of(annotation, hook.__annotations__["return"])
    problem_of = _OF_HOOKS.get(name)
    if problem_of is None:
        return lambda value, _: check(value)

    def check_with_arguments(value: Any, arguments: Mapping[str, Any]) -> Any:
        plain = check(value)
        if problem := problem_of(plain, arguments):
            raise WrongAnswer(f"returned {problem}")
        return plain

    return check_with_arguments


# Key: a hook. Value: the check of its answers (see `Check`), which also gets the arguments of the hook.
ANSWERS: Mapping[str, Callable[[Any, Mapping[str, Any]], Any]] = {
    name: _check_of_hook(name) for name in vars(Hooks) if name.startswith("mxgw_")
}
