"""A third party's policy: every tenth event of ordinary items, all events of critical references, and exact gaps."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from support.loads import load_settings
from support.plugins import InstallPlugin
from support.recording import double_of
from support.replaying import ITEMS, subscribe_load

from mxgw_client import connect
from mxgw_core.api import Action, ItemRecord, Lag, OverflowPolicy, PolicyRequest, SelectEvents, hookimpl
from mxgw_core.events import policy_guard
from mxgw_core.testing import SlowReader, running_gateway, until

NTH = 10
CRITICAL = {"Load.Item00007", "Load.Item00031"}


@dataclass
class EveryNth:
    """Keeps every tenth event of each ordinary item, and all events of critical items."""

    name: str = "every_nth"
    # How many events of each item were decided. Key: the serial of the item.
    counts: Counter[int] = field(default_factory=Counter)
    # The answer for each event. What was kept is kept again when the policy is asked again before it was read.
    answers: dict[int, bool] = field(default_factory=dict)
    references: dict[int, str] = field(default_factory=dict)

    def on_overflow(self, lag: Lag) -> Action:
        return SelectEvents(self.keep)

    def keep(self, item: ItemRecord, kind: int, sequence: int) -> bool:
        if sequence not in self.answers:
            self.counts[item.serial] += 1
            is_nth = self.counts[item.serial] % NTH == 0
            self.answers[sequence] = item.item_definition in CRITICAL or is_nth
            self.references[sequence] = item.item_definition
        return self.answers[sequence]


class Plugin:
    requires_api = ">=1.0"

    def __init__(self) -> None:
        self.policy = EveryNth()

    @hookimpl
    def mxgw_overflow_policy(self, request: PolicyRequest) -> OverflowPolicy | None:
        return self.policy if request.name == "every_nth" else None


@pytest.mark.asyncio
async def test_every_nth_of_ordinary_items_all_of_critical_references_and_exact_gaps(
    install_plugin: InstallPlugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The verdict must not depend on how fast this machine is now. tests/core/events tests the time that a policy has.
    monkeypatch.setattr(policy_guard, "POLICY_BUDGET_S", 60.0)
    plugin = Plugin()
    settings = load_settings(
        *(ITEMS, 5_000),
        **{"plugins.enabled": ["backpressure", install_plugin("every_nth", plugin)]},
        **{"plugins.backpressure.queue_events": 3_000},
    )
    policy = plugin.policy
    async with (
        running_gateway(settings) as gateway,
        connect(gateway.target) as client,
        client.open_session() as session,
    ):
        assert gateway.plugin("every_nth") is plugin
        with pytest.raises(LookupError, match="loaded are backpressure, every_nth"):
            gateway.plugin("evry_nth")
        oracle = await subscribe_load(session)
        async with SlowReader(
            *(gateway.target, session.session_id),
            policy="every_nth",
            oracle=oracle,
            content=double_of,
            may_lose=lambda lost: lost.reason == "QUEUE_DROPPED",
        ) as reader:
            # Meanwhile the reader reads nothing. The policy is asked twice, so what it has kept is asked about again.
            await until(lambda: len(policy.answers) > 4_000)
            info = gateway.api.session(session.session_id)
            assert info is not None
            await reader.read_until(info.head_sequence)
            until_here = reader.position.sequence
        reader.checker.finish(until_here)
    decided = {s: reference for s, reference in policy.references.items() if s <= until_here}

    reader.check()
    assert len(decided) > 4_000
    assert reader.lost == {s for s in decided if not policy.answers[s]}
    assert set(reader.events) | reader.lost >= set(range(1, until_here + 1))
    for reference in set(decided.values()):
        asked = sorted(s for s in decided if decided[s] == reference)
        kept = [s for s in asked if s in reader.events]

        assert kept == (asked if reference in CRITICAL else asked[NTH - 1 :: NTH]), reference
    assert set(decided.values()) > CRITICAL
