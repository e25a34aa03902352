"""Workers of an earlier gateway run: what the plugins know of them, and what is to become of each."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from mxgw_core.api.workers import Orphan, OrphanVerdict
from mxgw_core.plugins import PluginHost

log = logging.getLogger(__name__)


def orphans_of(plugins: PluginHost) -> Iterator[tuple[Orphan, OrphanVerdict]]:
    """Yield every orphan a plugin knows, once, with the verdict on it."""
    known: set[str] = set()
    for answer in plugins.ask("mxgw_orphans"):
        if answer.error is not None:
            continue
        for orphan in answer.value:
            if orphan.session_id not in known:
                known.add(orphan.session_id)
                yield orphan, verdict_on(orphan, plugins)


def verdict_on(orphan: Orphan, plugins: PluginHost) -> OrphanVerdict:
    """Return what becomes of an orphan: any objection counts, and nobody is adopted unless somebody wants it."""
    if orphan.closing is not None or not orphan.was_ready:
        return OrphanVerdict.TERMINATE
    verdicts = set()
    for answer in plugins.ask("mxgw_orphan_verdict", orphan=orphan):
        is_verdict = answer.error is None and isinstance(answer.value, OrphanVerdict)
        verdicts.add(answer.value if is_verdict else OrphanVerdict.TERMINATE)
    for verdict in (OrphanVerdict.TERMINATE, OrphanVerdict.IGNORE, OrphanVerdict.ADOPT):
        if verdict in verdicts:
            return verdict
    return OrphanVerdict.TERMINATE
