"""The relay of the conformance kit, for gateways that listen on a Unix socket too."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

from mxgw_cli.conformance import relay
from mxgw_cli.conformance.relay import FaultProxy

__all__ = ["FaultProxy", "fault_proxy"]


def fault_proxy(upstream: str) -> AbstractAsyncContextManager[FaultProxy]:
    """Relay connections to `upstream` (`host:port` or `unix:/path`) during the block."""
    return relay.fault_proxy(upstream, _connect)


async def _connect(upstream: str) -> relay.Streams:
    if upstream.startswith("unix:"):
        return await asyncio.open_unix_connection(upstream.removeprefix("unix:"))
    return await relay.connect_tcp(upstream)
