"""The warning of `mxgw doctor` about keys whose rights do not fit the settings."""

from __future__ import annotations

import time
from collections.abc import Sequence

from mxgw_acl.keys import Scope
from mxgw_acl.settings import AclSettings
from mxgw_acl.store import KEYS_FILE, KeyStore
from mxgw_core.api import Finding

_NAMED = 5


def findings(settings: AclSettings) -> Sequence[Finding]:
    """Return a warning when viewers are limited to session tags, but some keys can open sessions with any tag.

    A key database that does not exist is not created.

    Raises:
        SettingsError: the key database cannot be opened.
    """
    if not settings.group_to_session_tag or not (settings.directory / KEYS_FILE).exists():
        return ()
    store = KeyStore(settings.directory)
    try:
        keys = store.keys().values()
    finally:
        store.close()
    now = time.time()
    free = [
        f"{key.id} ({key.name})"
        for key in keys
        if Scope.OPEN in key.scopes and not key.constraints.limits_tags and not key.why_dead(now)
    ]
    if not free:
        return ()
    more = f" and {len(free) - _NAMED} more" if len(free) > _NAMED else ""
    return (
        Finding(
            "session tags",
            "group_to_session_tag says which viewers see a session by its tag, and these keys may set any tag: "
            f"{', '.join(free[:_NAMED])}{more}",
            "Create keys with --tag for these clients (mxgw keys create NAME --tag GLOB), and revoke these.",
        ),
    )
