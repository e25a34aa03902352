"""Gateways with access control, API keys for them, and clients that send a key."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from mxgw_acl.keys import Constraints, Key, Scope
from mxgw_acl.store import KeyStore, KeyWishes
from mxgw_core.testing import RunningGateway, running_gateway
from support.clients import Client

EVERYTHING = frozenset(Scope) - {Scope.ALL_SESSIONS, Scope.ADMIN}


@dataclass
class Guarded:
    """A gateway with the plugin acl, and its key store, opened as the command line opens it."""

    gateway: RunningGateway
    store: KeyStore
    directory: Path

    @property
    def target(self) -> str:
        return self.gateway.target

    def issue(
        self,
        name: str = "test",
        scopes: frozenset[Scope] = EVERYTHING,
        *,
        expires_at: float | None = None,
        **limits: Any,
    ) -> tuple[Key, str]:
        """Create a key; return it and its text. `limits` are fields of `Constraints`."""
        certificate_names: Sequence[str] = limits.pop("certificate_names", ())
        key, text = self.store.create(
            KeyWishes(name, scopes, Constraints(**limits), expires_at, certificate_names), "test"
        )
        return key, text.text()

    def audit(self) -> list[dict[str, str]]:
        """Return the entries of the audit log."""
        return [json.loads(line) for line in (self.directory / "audit.jsonl").read_text().splitlines()]


@asynccontextmanager
async def guarded_gateway(directory: Path, overrides: Mapping[str, object] | None = None) -> AsyncIterator[Guarded]:
    """Run a gateway with access control whose files are in `directory`. A new key is valid at once."""
    private = directory / "acl"
    settings: dict[str, object] = {
        "plugins.enabled": ["acl"],
        "plugins.acl.directory": str(private),
        "plugins.acl.environment": "test",
        "plugins.acl.check_interval_s": 0.02,
        "limits.failed_attempts_burst": 1000,
        **(overrides or {}),
    }
    async with running_gateway(settings) as gateway:
        with opened_store(private) as store:
            yield Guarded(gateway, store, private)


@contextmanager
def opened_store(directory: Path) -> Iterator[KeyStore]:
    """Open a key store during the block."""
    store = KeyStore(directory)
    try:
        yield store
    finally:
        store.close()


class _WithMetadata(grpc.aio.UnaryUnaryClientInterceptor, grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[misc]
    def __init__(self, metadata: Mapping[str, str]) -> None:
        self._metadata = tuple(metadata.items())

    def _with(self, details: Any) -> Any:
        return details._replace(metadata=grpc.aio.Metadata(*(details.metadata or ()), *self._metadata))

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(self._with(client_call_details), request)

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(self._with(client_call_details), request)


class _UnaryOnly(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, inner: _WithMetadata) -> None:
        self._inner = inner

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._inner.intercept_unary_unary(continuation, client_call_details, request)


class _StreamOnly(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, inner: _WithMetadata) -> None:
        self._inner = inner

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._inner.intercept_unary_stream(continuation, client_call_details, request)


@asynccontextmanager
async def client_with(
    target: str,
    credentials: str | None = None,
    *,
    metadata: Mapping[str, str] | None = None,
    channel_credentials: grpc.ChannelCredentials | None = None,
    options: Sequence[tuple[str, Any]] = (),
) -> AsyncIterator[Client]:
    """Connect with the metadata `authorization: Bearer <credentials>`, or with other metadata."""
    sent = dict(metadata or {})
    if credentials is not None:
        sent["authorization"] = f"Bearer {credentials}"
    inner = _WithMetadata(sent)
    interceptors = [_UnaryOnly(inner), _StreamOnly(inner)]
    options = (("grpc.use_local_subchannel_pool", 1), *options)
    channel = (
        grpc.aio.insecure_channel(target, options=options, interceptors=interceptors)
        if channel_credentials is None
        else grpc.aio.secure_channel(target, channel_credentials, options=options, interceptors=interceptors)
    )
    try:
        yield Client(channel)
    finally:
        await channel.close()
