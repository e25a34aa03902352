"""The overflow policy a reader asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mxgw.v1 import event_service_pb2


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy by name, for example `Policy("sample", {"interval_ms": "500"})`; the gateway may refuse it."""

    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    def to_message(self) -> event_service_pb2.OverflowPolicyChoice:
        """Return the contract's message."""
        return event_service_pb2.OverflowPolicyChoice(name=self.name, parameters=dict(self.parameters))
