"""The objects that hooks have returned, as the gateway uses them: each call is counted, timed, checked and contained.

Each class here has the methods of a protocol of the API, and calls the plugin's object. When the object fails, the
error names the plugin. Objects that decide about access then refuse.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

from mxgw.v1.commands_pb2 import BrowseNode, MxCommand
from mxgw.v1.events_pb2 import SourceHealth, WorkerState
from mxgw_core.api.access import BrowseGuard, CommandGuard, ItemAccess, SessionPredicate
from mxgw_core.api.errors import AccessDenied, GatewayError, PluginFailed
from mxgw_core.api.events import EventFilter, StandingFilter, StreamPace
from mxgw_core.api.feeds import FeedDescription, FeedFilter, FeedSnapshot
from mxgw_core.api.items import input_count
from mxgw_core.api.ranges import range_problem
from mxgw_core.api.types import ItemRecord, SessionInfo
from mxgw_core.plugins.answers import Check, WrongAnswer, check_of, has_members, method_check
from mxgw_core.plugins.arguments import own_copy
from mxgw_core.plugins.calls import CallFailed, Owner
from mxgw_core.printable import printable

_T = TypeVar("_T")

# The longest reason for which a guard denies one input, in characters. A bulk command has thousands of inputs.
_LONGEST_REASON = 300

_DENIED = method_check(CommandGuard, "denied")
_SHOWS = method_check(BrowseGuard, "shows")
_REVISION = method_check(StandingFilter, "revision")
_WAIT_S = method_check(StreamPace, "wait_s")
_NOTHING = check_of(None, "None")
_BOOL = check_of(bool, "bool")
_SNAPSHOT = check_of(FeedSnapshot, "FeedSnapshot")
_FRAMES = check_of(Iterator, "Iterator[bytes]")
_FRAME = check_of(bytes, "bytes")
_HEALTH = check_of(tuple[int, int], "the states of worker and source")


def denial(owner: Owner, what: str) -> AccessDenied:
    """Return the error for a caller when a plugin that decides about access has failed. `what` could not be decided."""
    return AccessDenied(f"{what}: plugin {owner.plugin!r} failed", metadata={"plugin": owner.plugin})


_END: Any = object()  # what `next` returns at the end of the frames; a plugin's None is a wrong answer


def _frame(answer: object) -> object:
    return answer if answer is _END else _FRAME(answer)


class PluginGuard:
    """A `CommandGuard` of a plugin. It gets its own copy of each command."""

    def __init__(self, guard: CommandGuard, owner: Owner) -> None:
        self._guard = guard
        self._owner = owner

    def denied(self, command: MxCommand, items: Sequence[ItemRecord | None]) -> Mapping[int, str]:
        what, call = "CommandGuard.denied", self._owner.call
        try:
            denied = call(what, _DENIED, self._guard.denied, own_copy(command), tuple(items))
            if denied:
                denied = call(what, None, _bounded, denied, input_count(command))
        except CallFailed as error:
            raise denial(self._owner, "the command could not be authorized") from error
        return denied


def _bounded(denied: Mapping[int, str], inputs: int) -> Mapping[int, str]:
    """Return what a guard denied, with reasons that can be sent: long ones are cut off.

    Raises:
        WrongAnswer: there is no input with such an index.
    """
    for index in denied:
        if not 0 <= index < inputs:
            raise WrongAnswer(f"denied input {index} of a command with {inputs}")
    return {index: printable(why, _LONGEST_REASON) for index, why in denied.items()}


class PluginBrowseGuard(PluginGuard):
    """A `CommandGuard` of a plugin that is a `BrowseGuard` too."""

    def __init__(self, guard: BrowseGuard, owner: Owner) -> None:
        super().__init__(guard, owner)  # type: ignore[arg-type]  # a hook returned it as a CommandGuard
        self._browse_guard = guard

    def shows(self, node: BrowseNode) -> bool:
        try:
            return self._owner.call("BrowseGuard.shows", _SHOWS, self._browse_guard.shows, own_copy(node))
        except CallFailed as error:
            raise denial(self._owner, "the nodes could not be authorized") from error


def plugin_guard(guard: CommandGuard, owner: Owner) -> CommandGuard:
    """Return a guard of a plugin as the gateway uses it."""
    if has_members(guard, BrowseGuard):
        return PluginBrowseGuard(cast(BrowseGuard, guard), owner)
    return PluginGuard(guard, owner)


class PluginFilter:
    """An `EventFilter` of a plugin.

    Attributes:
        keep: the method of the plugin's filter itself, so that nothing is added to a call for an event. `ItemFilters`
            counts and checks the answers for many events together.
        owner: the plugin.
    """

    def __init__(self, event_filter: EventFilter, owner: Owner) -> None:
        self._filter = event_filter
        self.owner = owner
        self.keep = event_filter.keep

    def refusal(self) -> GatewayError:
        """Return the error that ends a stream whose filter has failed."""
        return denial(self.owner, "the events could not be filtered")


def check_answers(answers: Sequence[object]) -> None:
    """Make sure that a filter has answered with True and False only; None is no answer.

    Raises:
        WrongAnswer: it has not.
    """
    if set(map(type, answers)) - {bool}:
        wrong = [answer for answer in answers if type(answer) is not bool]
        for answer in wrong[1:]:
            if inspect.iscoroutine(answer):
                answer.close()
        _BOOL(wrong[0])


class PluginStandingFilter(PluginFilter):
    """A `StandingFilter` of a plugin. It is equal to another one when the plugin's filters are equal."""

    def __init__(self, event_filter: StandingFilter, owner: Owner) -> None:
        super().__init__(event_filter, owner)
        self._standing = event_filter
        self._hash = self._called("StandingFilter.__hash__", lambda: hash(event_filter))

    @property
    def revision(self) -> int:
        try:
            revision = self._standing.revision
            _REVISION(revision)
        except BaseException as error:
            self.owner.failed("StandingFilter.revision", error)
            raise self.refusal() from error
        return revision

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, PluginStandingFilter) or other.owner != self.owner:
            return False
        return self._called("StandingFilter.__eq__", lambda: bool(self._standing == other._standing))

    def __hash__(self) -> int:
        return self._hash

    def _called(self, what: str, function: Callable[[], _T]) -> _T:
        try:
            return self.owner.call(what, None, function)
        except CallFailed as error:
            raise self.refusal() from error


def plugin_filter(event_filter: EventFilter, owner: Owner) -> PluginFilter:
    """Return a filter of a plugin as the gateway uses it.

    Raises:
        AccessDenied: the filter is a standing filter that cannot be hashed.
    """
    if has_members(event_filter, StandingFilter):
        return PluginStandingFilter(cast(StandingFilter, event_filter), owner)
    return PluginFilter(event_filter, owner)


class PluginPace:
    """A `StreamPace` of a plugin."""

    def __init__(self, pace: StreamPace, owner: Owner) -> None:
        self._pace = pace
        self._owner = owner

    def wait_s(self) -> float:
        return self._called("StreamPace.wait_s", _check_wait, self._pace.wait_s)

    def sent(self, events: int) -> None:
        self._called("StreamPace.sent", _NOTHING, lambda: self._pace.sent(events))

    def _called(self, what: str, check: Check, function: Callable[[], _T]) -> _T:
        try:
            return self._owner.call(what, check, function)
        except CallFailed as error:
            plugin = self._owner.plugin
            raise PluginFailed(
                f"plugin {plugin!r}, which limits how fast this stream is, failed", metadata={"plugin": plugin}
            ) from error


def _check_wait(answer: object) -> float:
    wait_s: float = _WAIT_S(answer)
    if problem := range_problem(wait_s):
        raise WrongAnswer(f"returned {problem}")
    return wait_s


class PluginItemAccess:
    """An `ItemAccess` of a plugin."""

    def __init__(self, access: ItemAccess, owner: Owner) -> None:
        self._access = access
        self._owner = owner

    def may_read(self, reference: str) -> bool:
        return self._called("ItemAccess.may_read", _BOOL, lambda: self._access.may_read(reference))

    def may_write(self, reference: str) -> bool:
        return self._called("ItemAccess.may_write", _BOOL, lambda: self._access.may_write(reference))

    def decided(self, action: str, allowed: Sequence[str], denied: Sequence[str]) -> None:
        copies = tuple(allowed), tuple(denied)
        self._called("ItemAccess.decided", _NOTHING, lambda: self._access.decided(action, *copies))

    def _called(self, what: str, check: Check, function: Callable[[], _T]) -> _T:
        try:
            return self._owner.call(what, check, function)
        except CallFailed as error:
            raise denial(self._owner, "the items could not be authorized") from error


def plugin_predicate(may_see: SessionPredicate, owner: Owner) -> SessionPredicate:
    """Return a predicate of a plugin as the gateway uses it: when it fails, the operator does not see the session."""

    def sees(info: SessionInfo) -> bool:
        try:
            return owner.call("SessionPredicate", _BOOL, may_see, info)
        except (CallFailed, GatewayError):
            return False

    return sees


def plugin_feed(description: FeedDescription, owner: Owner | None) -> FeedDescription:
    """Return the description of a plugin's feed as the gateway uses it. Without an owner it stays as it is."""
    if owner is None:
        return description
    source: Owner = owner

    def failed() -> PluginFailed:
        text = f"plugin {source.plugin!r}, which has this feed, failed"
        return PluginFailed(text, metadata={"plugin": source.plugin})

    def snapshot() -> FeedSnapshot:
        try:
            return _PluginSnapshot(
                source.call("FeedDescription.snapshot", _SNAPSHOT, description.snapshot), source, failed
            )
        except CallFailed as error:
            raise failed() from error

    def health() -> tuple[WorkerState.ValueType, SourceHealth.ValueType]:
        try:
            return source.call("FeedDescription.health", _HEALTH, description.health)
        except CallFailed as error:
            raise failed() from error

    return replace(description, snapshot=snapshot, health=health)


class _PluginSnapshot:
    """A `FeedSnapshot` of a plugin."""

    def __init__(self, snapshot: FeedSnapshot, owner: Owner, failed: Callable[[], PluginFailed]) -> None:
        self._snapshot = snapshot
        self._owner = owner
        self._failed = failed

    def frames(self, filters: Sequence[FeedFilter], limit_bytes: int) -> Iterator[bytes]:
        call, what = self._owner.call, "FeedSnapshot.frames"
        try:
            frames = iter(call(what, _FRAMES, self._snapshot.frames, filters, limit_bytes))
            while (frame := call(what, _frame, next, frames, _END)) is not _END:
                yield frame
        except CallFailed as error:
            raise self._failed() from error
