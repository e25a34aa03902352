"""Handles that are given out again under way: a key with limits does and sees what it may, in whatever order."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from support.handle_races import FREE, LIMITED, OPEN, REFERENCES, SECRET, HandleRace

from mxgw.convert import to_value
from mxgw.v1 import commands_pb2 as c

log = logging.getLogger(__name__)

callers = st.sampled_from([LIMITED, LIMITED, FREE])
references = st.sampled_from(REFERENCES)
# Few, so that they are given out again and again; the simulator takes the smallest that is free, as MXAccess does.
handles = st.integers(1, 4)


class HandleRaces(RuleBasedStateMachine):
    reasons: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.race = HandleRace()
        self.loop.run_until_complete(self.race.start())

    @initialize(some=st.lists(references, max_size=4))
    def some_items_are_there(self, some) -> None:
        if some:
            self.items_are_subscribed(FREE, some)
            self.everything_arrives()

    # commands

    @rule(who=callers, reference=references)
    def an_item_is_added(self, who, reference) -> None:
        self.race.ask(who, add_item=c.AddItemCommand(server_handle=1, item_definition=reference))

    @rule(who=callers, references=st.lists(references, min_size=1, max_size=3))
    def items_are_subscribed(self, who, references) -> None:
        items = [c.ItemReference(item_definition=reference) for reference in references]
        self.race.ask(who, subscribe_bulk=c.SubscribeBulkCommand(server_handle=1, items=items))

    @rule(who=callers, handle=handles, method=st.sampled_from(["remove_item", "advise", "un_advise", "suspend"]))
    def a_handle_is_used(self, who, handle, method) -> None:
        self.race.ask(who, **{method: {"server_handle": 1, "item_handle": handle}})

    @rule(who=callers, handle=handles)
    def a_value_is_written(self, who, handle) -> None:
        self.race.ask(who, write=c.WriteCommand(server_handle=1, item_handle=handle, value=to_value(1)))

    @rule(who=callers, used=st.lists(handles, min_size=1, max_size=4))
    def items_are_unsubscribed(self, who, used) -> None:
        self.race.ask(who, unsubscribe_bulk=c.UnsubscribeBulkCommand(server_handle=1, item_handles=used))

    @rule(who=callers, used=st.lists(handles, min_size=1, max_size=4))
    def values_are_written(self, who, used) -> None:
        writes = [c.BulkWrite(item_handle=handle, value=to_value(2)) for handle in used]
        self.race.ask(who, write_bulk=c.WriteBulkCommand(server_handle=1, writes=writes))

    @rule(who=callers, reference=references)
    def an_item_is_read(self, who, reference) -> None:
        items = [c.ItemReference(item_definition=reference)]
        self.race.ask(who, read_bulk=c.ReadBulkCommand(server_handle=1, items=items))

    @rule(who=callers, reference=references, handle=handles)
    def an_item_is_replaced_and_used_at_once(self, who, reference, handle) -> None:
        """What an attacker pipelines."""
        self.a_handle_is_used(who, handle, "remove_item")
        self.an_item_is_added(who, reference)
        self.a_handle_is_used(who, handle, "advise")
        self.a_value_is_written(who, handle)

    # the machine in between

    @rule(count=st.integers(1, 4), turns=st.integers(0, 8))
    def commands_arrive(self, count, turns) -> None:
        self.loop.run_until_complete(self.race.turns(1))
        self.loop.run_until_complete(self.race.let_to_worker(count))
        self.loop.run_until_complete(self.race.turns(turns))

    @rule(count=st.integers(1, 6))
    def answers_and_events_arrive(self, count) -> None:
        self.race.let_to_gateway(count)
        self.loop.run_until_complete(self.race.turns(1))

    @rule(pace=st.integers(0, 5))
    def the_backend_takes_its_time(self, pace) -> None:
        self.race.sim.pace = pace

    @rule()
    def time_passes(self) -> None:
        self.race.time_passes()
        self.loop.run_until_complete(self.race.turns(2))

    @rule()
    def everything_arrives(self) -> None:
        self.loop.run_until_complete(self.race.settle())

    @rule()
    def the_gateway_restarts(self) -> None:
        self.race.gateway_restarts()
        self.loop.run_until_complete(self.race.turns(2))

    def teardown(self) -> None:
        race = self.race
        try:
            self.loop.run_until_complete(race.settle())
        finally:
            self.loop.run_until_complete(race.end())
            self.loop.close()
        forbidden, wrong = race.forbidden_calls(), race.wrongly_shown_or_withheld()
        HandleRaces.reasons += race.reasons

        assert forbidden == []
        assert wrong == []


def run(examples: int) -> None:
    HandleRaces.reasons.clear()
    run_state_machine_as_test(
        HandleRaces,
        settings=settings(
            max_examples=examples, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_no_order_of_commands_and_answers_lets_a_key_do_or_see_what_it_may_not() -> None:
    run(60)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_ten_thousand_orders_let_a_key_do_and_see_what_it_may_and_nothing_else() -> None:
    run(10_000)
    log.info("10,000 runs; refusals by reason: %s", dict(HandleRaces.reasons))

    assert HandleRaces.reasons["ITEM_CHANGED"] > 100
    assert HandleRaces.reasons["ITEM_DENIED"] > 100


@pytest.mark.asyncio
async def test_a_write_that_was_judged_by_the_item_before_never_reaches_the_next() -> None:
    race = HandleRace()
    await race.start()
    race.ask(LIMITED, subscribe_bulk=c.SubscribeBulkCommand(server_handle=1, items=[{"item_definition": OPEN}]))
    await race.settle()
    # All of it is judged while the handle is still that of the item that may be written.
    race.ask(FREE, remove_item=c.RemoveItemCommand(server_handle=1, item_handle=1))
    race.ask(FREE, subscribe_bulk=c.SubscribeBulkCommand(server_handle=1, items=[{"item_definition": SECRET}]))
    await race.turns(1)
    await race.let_to_worker(2)
    await race.turns(12)
    race.time_passes()
    race.ask(LIMITED, write=c.WriteCommand(server_handle=1, item_handle=1, value=to_value(1)))
    await race.settle()

    assert race.reasons["ITEM_CHANGED"] == 1
    assert race.forbidden_calls() == []

    # Once the gateway has been told, it is the gateway that refuses.
    race.ask(LIMITED, write=c.WriteCommand(server_handle=1, item_handle=1, value=to_value(1)))
    await race.settle()

    assert race.reasons["ACCESS_DENIED"] == 1

    # And who has no limits writes to what the handle stands for.
    race.ask(FREE, write=c.WriteCommand(server_handle=1, item_handle=1, value=to_value(1.5)))
    await race.settle()

    assert race.truth.calls[-1] == ("free", "write", SECRET)

    await race.end()
