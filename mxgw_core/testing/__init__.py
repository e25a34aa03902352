"""Helps plugin authors to write tests (docs/plugins/testing.md). It is part of the plugin API.

    running_gateway     serves a real gateway in the test's own event loop, on a private Unix socket
    gateway_process     runs a gateway as a process of its own, which can be killed and started again
    SlowReader          reads a session's events only as fast as the test wants, and checks every frame
    until               waits for a condition
    session_info and others     make the values that the gateway passes to a plugin

The checker of streams is in the module `mxgw_core.testing.checker`.
"""

from mxgw_core.testing.gateway import RunningGateway, running_gateway
from mxgw_core.testing.process import GatewayProcess, gateway_process
from mxgw_core.testing.reader import SlowReader
from mxgw_core.testing.values import identity, item_record, lag, policy_request, queue_limits, session_info
from mxgw_core.testing.waiting import until

__all__ = [
    "GatewayProcess",
    "RunningGateway",
    "SlowReader",
    "gateway_process",
    "identity",
    "item_record",
    "lag",
    "policy_request",
    "queue_limits",
    "running_gateway",
    "session_info",
    "until",
]
