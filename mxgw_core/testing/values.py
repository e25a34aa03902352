"""Makes the values that the gateway passes to plugins, for tests that call a plugin without a gateway.

Every function takes the fields that matter for a test, and fills in the others:

    plugin.mxgw_session_opened(session_info(client_name="desk"))
    policy = plugin.mxgw_overflow_policy(policy_request("keep_alarms", {"items": "3"}))
    assert policy.on_overflow(lag(11)) == Conflate()
    assert filter.keep(item_record("Tank_001.Level"), EVENT_KIND_DATA_CHANGE)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mxgw_core.api.events import Lag, PolicyRequest, QueueLimits
from mxgw_core.api.types import Identity, ItemRecord, SessionInfo, SessionState


def session_info(session_id: str = "s", **fields: Any) -> SessionInfo:
    """Return the description of a session that is READY.

    `fields` are fields of `SessionInfo`, which replace the default values.

    Example:
        session_info("s1", owner="key-7", tag="line 3")
    """
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


def item_record(reference: str = "Tank_001.Level", serial: int = 1, **fields: Any) -> ItemRecord:
    """Return the record of an item with this reference, its `item_definition`.

    The item handle is the serial, and the server handle is 1. `fields` are other fields of `ItemRecord`.

    Example:
        item_record("Level", 7, item_context="Tank_001")
    """
    known = {"serial": serial, "server_handle": 1, "item_handle": serial, "item_definition": reference}
    return ItemRecord(**{**known, **fields})


def identity(identity_id: str = "key", **fields: Any) -> Identity:
    """Return the identity of a caller with an API key. `fields` are other fields of `Identity`.

    Example:
        identity("anna", kind="operator", display_name="Anna")
    """
    return Identity(**{"id": identity_id, "kind": "key", **fields})


def queue_limits(events: int = 10, **fields: Any) -> QueueLimits:
    """Return limits of a subscriber's lag, only in events. `fields` are other fields of `QueueLimits`.

    Example:
        queue_limits(300, seconds=5.0)
    """
    return QueueLimits(**{"events": events, "bytes": 0, "seconds": 0.0, **fields})


def lag(events: int = 11, **fields: Any) -> Lag:
    """Return the lag of a subscriber that is `events` events behind.

    Its limits are those of `queue_limits()`. `fields` are other fields of `Lag`.

    Example:
        lag(over_limit_s=60.1)
    """
    known = {"bytes": 0, "seconds": 0.0, "limits": queue_limits(), "over_limit_s": 0.0}
    return Lag(**{"subscriber_id": "reader", "events": events, **known, **fields})


def policy_request(name: str = "", parameters: Mapping[str, str] | None = None, **fields: Any) -> PolicyRequest:
    """Return the request of a new subscriber for the policy `name`; "" asks for none.

    `fields` are other fields of `PolicyRequest`.

    Example:
        policy_request("keep_alarms", {"items": "3,17"}, client_name="desk")
    """
    known = {"session": session_info(), "subscriber_id": "reader", "client_name": "", "limits": queue_limits()}
    return PolicyRequest(**{"name": name, "parameters": dict(parameters or {}), **known, **fields})
