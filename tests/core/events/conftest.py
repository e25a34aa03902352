"""A fixture for tests of what takes long in the code of a plugin."""

from __future__ import annotations

import pytest

from mxgw_core.events import policy_guard
from mxgw_worker.platform import exact_thread_use


@pytest.fixture
def uninterrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `Budget` see no interruptions, so that a block that waits is to blame however busy the machine is."""
    monkeypatch.setattr(policy_guard, "exact_thread_use", lambda: (*exact_thread_use()[:2], 0))
