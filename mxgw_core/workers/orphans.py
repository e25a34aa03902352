"""Finds the orphans that plugins know, and decides about each orphan from the verdicts of the plugins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mxgw_core.api.errors import AccessDenied
from mxgw_core.api.types import INTERNAL, CloseReason
from mxgw_core.api.workers import Orphan, OrphanVerdict
from mxgw_core.plugins import PluginHost


@dataclass(frozen=True, slots=True)
class OrphanDecision:
    """What happens to an orphan. `reason` and `detail` matter for TERMINATE only: they say why its session ends."""

    verdict: OrphanVerdict
    reason: CloseReason = CloseReason.GATEWAY_SHUTDOWN
    detail: str = ""


_ADOPT, _IGNORE = OrphanDecision(OrphanVerdict.ADOPT), OrphanDecision(OrphanVerdict.IGNORE)


def orphans_of(plugins: PluginHost) -> Iterator[tuple[Orphan, OrphanDecision]]:
    """Yield every orphan that a plugin knows, together with the decision about it. No orphan is yielded twice."""
    known: set[str] = set()
    for answer in plugins.ask("mxgw_orphans"):
        if answer.error is not None:
            continue
        for orphan in answer.value:
            if orphan.session_id not in known:
                known.add(orphan.session_id)
                yield orphan, decide(orphan, plugins)


def decide(orphan: Orphan, plugins: PluginHost) -> OrphanDecision:
    """Return the decision about an orphan. An orphan that cannot be adopted, because it was never ready, its session
    was ending, or its session was one of the gateway itself, is ended. For any other orphan the plugins are asked. It
    is adopted when at least one plugin says ADOPT, and no plugin answers anything else or fails.
    """
    if orphan.closing is not None:
        return _ended(orphan.closing_detail or "its end had begun when the gateway stopped", orphan.closing)
    if orphan.spawn.owner_kind == INTERNAL.kind:
        return _ended("it was the gateway's own, which opens a new one at its start")
    if not orphan.was_ready:
        return _ended("the gateway stopped while it was starting")
    verdicts = set()
    for answer in plugins.ask("mxgw_orphan_verdict", orphan=orphan):
        if isinstance(answer.error, AccessDenied):
            return _ended(answer.error.message, CloseReason.OWNER_REVOKED)
        if answer.error is not None:
            return _ended(f"plugin {answer.plugin} failed to decide about it after a restart of the gateway")
        if answer.value is OrphanVerdict.TERMINATE:
            return _ended(f"plugin {answer.plugin} did not want it back after a restart of the gateway")
        verdicts.add(answer.value)
    if OrphanVerdict.IGNORE in verdicts:
        return _IGNORE
    return _ADOPT if verdicts else _ended("no plugin wanted it back after a restart of the gateway")


def _ended(detail: str, reason: CloseReason = CloseReason.GATEWAY_SHUTDOWN) -> OrphanDecision:
    return OrphanDecision(OrphanVerdict.TERMINATE, reason, detail)
