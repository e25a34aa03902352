"""Chooses which unread events the actions `Select` and `SelectEvents` of a policy keep.

A policy is asked about item records, which are found by the serials in the events. The handles in the events are of no
use here, because MXAccess uses handles again. An event whose item is not known is kept, and the policy is not asked: if
it were dropped, a policy that keeps everything of certain items could lose an event of one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from mxgw_core.api.types import ItemRecord
from mxgw_core.events.filters import identity_of
from mxgw_core.events.item_book import ItemBook

# Calls a `keep` with each of the given arguments, and returns the answers in the same order.
Ask: TypeAlias = Callable[[Callable[..., bool], Iterable[Sequence[object]]], list[bool]]
# Gets the sequences and the keys of all unread events (see `Opened`), and returns for each event whether it is kept.
Choice: TypeAlias = Callable[[Sequence[int], Sequence[int]], Sequence[bool]]


def by_item(keep: Callable[[ItemRecord, int], bool], items: ItemBook | None, ask: Ask) -> Choice:
    """Return the choice of `Select(keep)`: `keep` is asked once for each item and kind."""

    def choose(sequences: Sequence[int], keys: Sequence[int]) -> Sequence[bool]:
        del sequences  # all events of an item and kind get the same answer
        known = _known(keys, items)
        answers = dict(zip(known, ask(keep, known.values()), strict=True))
        return [answers.get(key, True) for key in keys]

    return choose


def by_event(keep: Callable[[ItemRecord, int, int], bool], items: ItemBook | None, ask: Ask) -> Choice:
    """Return the choice of `SelectEvents(keep)`: `keep` is asked about each event."""

    def choose(sequences: Sequence[int], keys: Sequence[int]) -> Sequence[bool]:
        known = _known(keys, items)
        questions = [(*known[key], sequence) for sequence, key in zip(sequences, keys, strict=True) if key in known]
        answers = iter(ask(keep, questions))
        return [next(answers) if key in known else True for key in keys]

    return choose


def _known(keys: Iterable[int], items: ItemBook | None) -> dict[int, tuple[ItemRecord, int]]:
    """Return the item and the kind that each key stands for, without the keys of items that are not known."""
    known: dict[int, tuple[ItemRecord, int]] = {}
    for key in dict.fromkeys(keys):
        serial, kind = identity_of(key)
        if items is not None and (item := items.get(serial)) is not None:
            known[key] = item, kind
    return known
