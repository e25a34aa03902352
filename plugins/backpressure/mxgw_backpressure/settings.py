"""The settings of `[plugins.backpressure]`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MIB = 1024 * 1024

PolicyName = Literal[
    "disconnect", "fail_session", "drop_oldest", "drop_newest", "conflate", "sample", "resync", "block"
]

Count = Annotated[int, Field(ge=0, le=10**9)]
Seconds = Annotated[float, Field(ge=0, le=86_400)]


class GraceSettings(BaseModel):
    """How long a subscriber is allowed to exceed its limits before its overflow policy decides.

    When `seconds` is 0, the overflow policy decides at once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seconds: float = Field(0.0, ge=0, le=3600, description="How long the limits may be exceeded; 0 switches grace off.")
    hard_events: Count = Field(20_000, description="Events beyond which the policy acts at once; 0 is no such limit.")
    hard_bytes: int = Field(16 * MIB, gt=0, le=2**50, description="Bytes beyond which the policy acts at once.")


class BackpressureSettings(BaseModel):
    """The number of subscribers, their limits, and the overflow policies.

    The limits of a subscriber count events that arrived after it attached and that it has not read yet.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    multiple_subscribers: bool = Field(
        True, description="Off: a second stream on a session is refused with SUBSCRIBER_EXISTS."
    )
    maximum_subscribers: int = Field(
        8, ge=1, le=10_000, description="Streams per session; the next one gets EVENT_SUBSCRIBER_LIMIT_REACHED."
    )
    queue_events: Count = Field(10_000, description="Events a subscriber may be behind; 0 is no such limit.")
    queue_bytes: int = Field(8 * MIB, gt=0, le=2**50, description="Bytes a subscriber may be behind. Always bounded.")
    queue_seconds: Seconds = Field(0.0, description="Age of the oldest unread event; 0 is no such limit.")
    policy: PolicyName = Field(
        "disconnect", description="What happens at a limit to a subscriber that asks for nothing."
    )
    client_policies: tuple[PolicyName, ...] = Field(
        ("disconnect", "drop_oldest", "drop_newest", "conflate", "sample", "resync"),
        description="Which policies of this plugin clients may ask for; those of other plugins always.",
    )
    low_water_percent: int = Field(
        80,
        ge=0,
        le=99,
        description="drop_newest: takes events again once no more than this much of the limit is unread.",
    )
    sample_interval_s: float = Field(
        1.0, ge=0.01, le=3600, description="sample: seconds between two values of one item, when the client names none."
    )
    block_timeout_s: float = Field(
        1.0,
        gt=0,
        le=30,
        description="block: the longest time the session waits for its subscriber; then it disconnects.",
    )
    block_with_many: bool = Field(
        False, description="Allow block although several subscribers may share a session: one then delays all."
    )
    grace: GraceSettings = Field(GraceSettings(), description="Patience before the policy acts.")

    @property
    def subscriber_limit(self) -> int:
        """The largest number of subscribers of one session."""
        return self.maximum_subscribers if self.multiple_subscribers else 1

    @model_validator(mode="after")
    def _policies_fit_the_mode(self) -> BackpressureSettings:
        usable = {self.policy, *self.client_policies}
        if self.subscriber_limit > 1:
            if "fail_session" in usable:
                raise ValueError(
                    "fail_session ends the session for every subscriber: it needs multiple_subscribers = false"
                )
            if "block" in usable and not self.block_with_many:
                raise ValueError(
                    "block lets one subscriber delay all others: it needs multiple_subscribers = false, or "
                    "block_with_many = true"
                )
        if self.grace.seconds and self.grace.hard_events and self.grace.hard_events <= self.queue_events:
            raise ValueError("grace.hard_events must be larger than queue_events, or 0")
        if self.grace.seconds and self.grace.hard_bytes <= self.queue_bytes:
            raise ValueError("grace.hard_bytes must be larger than queue_bytes")
        return self
