"""Helps plugin authors to write tests: runs a real gateway in the test's own event loop, on a private Unix socket."""

from mxgw_core.testing.gateway import RunningGateway, running_gateway

__all__ = ["RunningGateway", "running_gateway"]
