"""The filter of one client: it passes the alarms that the client asked for and has the right to read."""

from __future__ import annotations

from collections.abc import Sequence

from mxgw.v1.alarm_service_pb2 import AlarmFilter as AlarmFilterMessage
from mxgw_alarms.book import NO_ALARM, AlarmBook
from mxgw_core.api import ItemAccess, in_slices
from mxgw_core.api.errors import InvalidRequest

MOST_SEVERE, LEAST_SEVERE = 1, 999
# The most prefixes in one filter. There is a limit because each alarm is compared with all prefixes.
MOST_PREFIXES = 100


class AlarmFilter:
    """The filter of one stream or one call of a client; implements `FeedFilter` for AlarmEvents."""

    def __init__(self, book: AlarmBook, wanted: AlarmFilterMessage, access: Sequence[ItemAccess]) -> None:
        """Check `wanted`, the filter in the client's request, and prepare it.

        Raises:
            InvalidRequest: the priorities are not a range, or there are too many prefixes.
        """
        if len(wanted.reference_prefixes) > MOST_PREFIXES:
            raise InvalidRequest(
                f"{len(wanted.reference_prefixes)} reference prefixes are asked for, {MOST_PREFIXES} are allowed: use "
                "shorter ones, or areas",
                metadata={"field": "filter.reference_prefixes", "limit": str(MOST_PREFIXES)},
            )
        self._book = book
        self._access = access
        self._areas = frozenset(area.casefold() for area in wanted.areas)
        self._prefixes = tuple(prefix.casefold() for prefix in wanted.reference_prefixes)
        first, last = wanted.from_priority or MOST_SEVERE, wanted.to_priority or LEAST_SEVERE
        if not MOST_SEVERE <= first <= last <= LEAST_SEVERE:
            raise InvalidRequest(
                f"priorities {first} to {last} are no range: from_priority and to_priority lie between {MOST_SEVERE} "
                f"(most severe) and {LEAST_SEVERE}, the first no greater than the second",
                metadata={"field": "filter.from_priority"},
            )
        self._priorities = range(first, last + 1)
        # Key: alarm handle. Value: whether the prefixes and the rights let the alarm pass; this never changes.
        self._names: dict[int, bool] = {}
        # Handles of alarms that passed the filter at least once.
        self._shown: set[int] = set()

    @property
    def lets_all_pass(self) -> bool:
        """Whether the filter passes every alarm, so that the caller can leave the filter out."""
        everything = self._priorities == range(MOST_SEVERE, LEAST_SEVERE + 1)
        return everything and not (self._access or self._areas or self._prefixes)

    @property
    def is_costly(self) -> bool:
        """Whether the filter has to compare each alarm with prefixes or with the caller's rights."""
        return bool(self._access or self._prefixes)

    async def ask(self, handles: Sequence[int]) -> None:
        """Compare these alarms with prefixes and rights before `keep` is called for them.

        A few alarms are compared at a time, so that other calls run in between. `keep` then uses the results.
        """
        async for some in in_slices(handles):
            for handle in some:
                self._is_named(handle)

    def keep(self, about: int, fourth: int, kind: int) -> bool:
        """Return whether the client gets an event: `about` is the handle of the alarm, `fourth` is its priority.

        An alarm that passed once also passes when its priority has left the range, so that the client sees its end.
        """
        del kind
        if about == NO_ALARM:
            return True
        if not self._is_named(about) or (self._areas and self._book.facts(about).area.casefold() not in self._areas):
            return False
        if fourth in self._priorities:
            self._shown.add(about)
            return True
        return about in self._shown

    def _is_named(self, handle: int) -> bool:
        named = self._names.get(handle)
        if named is None:
            named = self._names[handle] = self._may_be_named(self._book.facts(handle).reference)
        return named

    def _may_be_named(self, reference: str) -> bool:
        if self._prefixes and not reference.casefold().startswith(self._prefixes):
            return False
        return all(access.may_read(reference) for access in self._access)
