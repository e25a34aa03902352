"""The book against random histories of providers: whatever they do, a client that follows ends where the plant is."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.alarms import ACK_ALM, ACK_RTN, UNACK_ALM, UNACK_RTN, degraded, record

from mxgw.v1 import alarms_pb2 as pb
from mxgw_alarms.book import AlarmBook
from mxgw_alarms.states import CLEARED, RAISED, UPDATED, is_active, step

REFERENCES = ("A", "B", "C", "D")
# The fallback knows of these only.
WATCHED = frozenset({"A", "B", "C"})
NEXT = {
    ACK_RTN: (UNACK_ALM,),
    UNACK_ALM: (ACK_ALM, UNACK_RTN),
    ACK_ALM: (ACK_RTN,),
    UNACK_RTN: (ACK_RTN, UNACK_ALM),
}
NOBODY, PRIMARY, FALLBACK = "nobody", "primary", "fallback"


class PlantAndClient(RuleBasedStateMachine):
    """The plant lives; the provider in charge looks now and then; a client keeps a list from the events alone."""

    def __init__(self) -> None:
        super().__init__()
        self.plant = {reference: int(ACK_RTN) for reference in REFERENCES}
        self.raised = dict.fromkeys(REFERENCES, 0)
        self.clock = 0
        self.book = AlarmBook(100, now_ns=lambda: self.clock)
        self.client: dict[str, int] = {}
        self.speaker = NOBODY
        # What whoever speaks has shown last; the client can know no more.
        self.seen = dict(self.plant)

    # the plant

    @rule(reference=st.sampled_from(REFERENCES), choice=st.integers(0, 1))
    def something_happens(self, reference: str, choice: int) -> None:
        self.clock += 1
        before = self.plant[reference]
        options = NEXT[before]  # type: ignore[index]
        after = int(options[choice % len(options)])
        self.plant[reference] = after
        if after == UNACK_ALM:
            self.raised[reference] = self.clock

    # providers

    def native(self, reference: str) -> pb.Alarm:
        return record(reference, self.plant[reference], raised=self.raised[reference])

    @rule()
    def the_primary_takes_over(self) -> None:
        shown = [self.native(r) for r in REFERENCES if is_active(self.plant[r])]  # type: ignore[arg-type]
        self.follow(self.book.reconcile(shown, watched=None, degraded=False))
        self.speaker, self.seen = PRIMARY, dict(self.plant)

    @rule()
    def the_fallback_takes_over(self) -> None:
        shown = [degraded(r, self.plant[r]) for r in sorted(WATCHED)]
        self.follow(self.book.reconcile(shown, watched=WATCHED, degraded=True))
        self.speaker = FALLBACK
        self.seen.update((r, self.plant[r]) for r in WATCHED)

    @rule()
    def nobody_speaks(self) -> None:
        self.book.lost()
        self.speaker = NOBODY

    @precondition(lambda self: self.speaker != NOBODY)
    @rule(reference=st.sampled_from(REFERENCES))
    def the_speaker_looks_at_one(self, reference: str) -> None:
        if self.speaker == FALLBACK and reference not in WATCHED:
            return
        make = self.native if self.speaker == PRIMARY else lambda r: degraded(r, self.plant[r])
        event = self.book.apply(make(reference))
        self.follow([event] if event is not None else [])
        self.seen[reference] = self.plant[reference]

    # the client

    def follow(self, events: object) -> None:
        for event in events:  # type: ignore[attr-defined]
            alarm, before = event.transition.alarm, event.transition.previous_state
            known = self.client.get(alarm.reference, 0)

            assert known == before, "the client would not know what this is about"

            changed = step(before, alarm.state)
            if changed is None:
                # No step of its state: another occurrence, or details.
                assert event.kind in (RAISED, UPDATED)
                assert alarm.state == before
            else:
                assert event.kind in (changed, RAISED)
            # Nothing is raised or cleared that was not: the plant is, or was when it was seen, in this state.
            assert alarm.state == self.plant[alarm.reference]
            if event.kind == CLEARED:
                assert self.plant[alarm.reference] not in (UNACK_ALM, ACK_ALM)
            if alarm.state == ACK_RTN:
                self.client.pop(alarm.reference, None)
            else:
                self.client[alarm.reference] = alarm.state

    @invariant()
    def the_client_knows_what_was_shown(self) -> None:
        active = {r: s for r, s in self.seen.items() if is_active(s)}  # type: ignore[arg-type]

        assert self.client == active
        assert {entry.alarm.reference: entry.alarm.state for entry in self.book.entries()} == active

    @invariant()
    def what_nobody_watches_is_stale(self) -> None:
        for entry in self.book.entries():
            is_watched = self.speaker == PRIMARY or (self.speaker == FALLBACK and entry.alarm.reference in WATCHED)

            assert self.book.is_entry_stale(entry) != is_watched


PlantAndClient.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestPlantAndClient = PlantAndClient.TestCase
