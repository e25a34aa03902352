"""Failpoints: named steps at which a test can kill this process, to check that the next gateway recovers.

Without the environment variable MXGWTEST_FAILPOINT nothing happens. `MXGWTEST_FAILPOINT=close:after-manifest` kills the
process with SIGKILL when it reaches this step; with `close:after-manifest:2`, when it reaches the step for the second
time. So a failpoint does nothing that `kill -9` could not do. docs/reattach.md lists the steps, and what happens when
the gateway dies at each step.
"""

from __future__ import annotations

import os

from mxgw_worker.platform import kill_this_process

VARIABLE = "MXGWTEST_FAILPOINT"

STEPS = (
    "spawn:before-manifest",
    "spawn:after-manifest",
    "spawn:after-process",
    "spawn:after-pid",
    "spawn:after-startup",
    "hello:before-manifest",
    "hello:after-manifest",
    "hello:after-welcome",
    "hello:before-ready",
    "hello:after-ready",
    "adopt:before-listen",
    "adopt:after-listen",
    "adopt:before-manifest",
    "adopt:after-manifest",
    "adopt:after-welcome",
    "adopt:before-ready",
    "adopt:after-ready",
    "write:before-answer",
    "close:before-manifest",
    "close:after-manifest",
    "close:after-stop",
    "close:after-exit",
    "close:after-delete",
)

_seen: dict[str, int] = {}


def reach(step: str) -> None:
    """Kill this process if the environment variable names this step."""
    asked = os.environ.get(VARIABLE)
    if asked is None:
        return
    assert step in STEPS, step
    if not asked.startswith(step):
        return
    _seen[step] = _seen.get(step, 0) + 1
    number = asked[len(step) + 1 :] or "1"
    if _seen[step] == int(number):
        kill_this_process()
