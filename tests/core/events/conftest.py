"""A fixture for tests of what takes long in the code of a plugin."""

from __future__ import annotations

import time

import pytest

from mxgw_core.events import policy_guard
from mxgw_worker.platform import ThreadUse, exact_thread_use


@pytest.fixture
def uninterrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `Budget` see no interruptions, so that a block that waits is to blame however busy the machine is.

    Where the system does not count waits, calls of `time.sleep` are counted.
    """
    sleeps, sleep = 0, time.sleep

    def counted(seconds: float) -> None:
        nonlocal sleeps
        sleeps += 1
        sleep(seconds)

    def use() -> ThreadUse:
        cpu_s, waits, _ = exact_thread_use()
        return cpu_s, sleeps if waits is None else waits, 0

    monkeypatch.setattr(time, "sleep", counted)
    monkeypatch.setattr(policy_guard, "exact_thread_use", use)
