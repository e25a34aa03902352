"""Descriptions of sessions as plugins get them."""

from __future__ import annotations

from typing import Any

from mxgw_core.api import SessionInfo, SessionState


def session_info(session_id: str = "s", **fields: Any) -> SessionInfo:
    """Return the description of a session that is ready; `fields` replace its default values."""
    known: dict[str, Any] = {
        "state": SessionState.READY,
        "owner": "key",
        "client_name": "",
        "tag": "",
        "backend": "sim",
        "opened_at": 0.0,
        "epoch": bytes(16),
        "head_sequence": 0,
        "oldest_sequence": 1,
        "subscribers": 0,
        "worker_pid": 1,
    }
    return SessionInfo(session_id=session_id, **{**known, **fields})
