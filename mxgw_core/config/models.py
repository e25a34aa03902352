"""The settings as frozen models: names, defaults, ranges and descriptions. docs/configuration.md is made from them.

The module has more than 400 lines, because it is one list of all settings.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from mxgw_core.config.files import Path
from mxgw_core.config.secrets import masked_tree
from mxgw_worker.ipc.references import MOST_REFERENCE_BYTES

MIB = 1024 * 1024

# The longest time that a setting can have, a hundred years. A longer time is a mistake, and calendars and timers could
# not handle it.
LONGEST_S = 36_525 * 86_400
Seconds = Annotated[float, Field(gt=0)]
# The largest values of counts and sizes in settings: more than any gateway or machine has, and small enough for the
# fields of the contract.
LARGEST_COUNT, LARGEST_BYTES = 10**9, 2**50
Count = Annotated[int, Field(gt=0)]

_TCP_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\]]+):(\d{1,5})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def _address(value: str) -> str:
    if value.startswith("unix:") and len(value) > len("unix:"):
        return value
    match = _TCP_ADDRESS.fullmatch(value)
    if match is None or int(match[2]) > 65535:
        raise ValueError("must be host:port, [ipv6]:port or unix:/path, with a port from 0 to 65535")
    return value


def _name(value: str) -> str:
    if _NAME.fullmatch(value) is None:
        raise ValueError("a name must be 1 to 64 letters, digits, '-' or '_'")
    return value


def _path(value: object) -> object:
    # A path is used exactly as it is written, so quotes around it would become a part of the name.
    if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        raise ValueError("must be the path itself, without quotes around it")
    # Without this check an empty path would mean the working directory.
    if isinstance(value, str) and not value.strip():
        raise ValueError("is empty: name a path, or leave the setting out")
    return value


NamedPath = Annotated[FilePath, BeforeValidator(_path)]
Address = Annotated[str, AfterValidator(_address)]
Name = Annotated[str, AfterValidator(_name)]


class SettingsConflict(ValueError):
    """Settings of several sections do not fit together.

    Attributes:
        problems: for each problem, the key whose place is reported, and a sentence that says what is wrong.
    """

    def __init__(self, problems: Sequence[tuple[Path, str]]) -> None:
        super().__init__("; ".join(text for _, text in problems))
        self.problems = problems


class SettingsModel(BaseModel):
    """Base of all settings sections. Settings cannot be changed, unknown keys are usually errors, and `repr` masks
    secrets.
    """

    # Infinity is refused, because it would satisfy every lower bound, and timers cannot handle it. The texts of errors
    # do not contain the wrong values, because a value can be a password.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        declared = type(self).model_fields
        for key, value in super().__repr_args__():
            # In declared fields, secrets have the type SecretStr. In tables with arbitrary keys, secrets are recognised
            # by the names of their keys.
            free_form = key not in declared or isinstance(value, dict)
            yield key, masked_tree(value, key or "") if free_form else value


class GatewaySettings(SettingsModel):
    """Where the gateway listens and keeps its files."""

    listen: tuple[Address, ...] = Field(
        ("127.0.0.1:50051",),
        min_length=1,
        description="Addresses to serve: `host:port`, `[ipv6]:port`, or `unix:/path`. Port 0 takes a free one. "
        "Beyond loopback an authenticating plugin and TLS are needed.",
    )
    data_dir: NamedPath = Field(
        FilePath("var"),
        description="Private directory for worker sockets and logs; made with mode 0700. Relative to the working "
        "directory.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="What the gateway logs.")
    reflection: bool = Field(
        False, description="Serve gRPC reflection, for tools such as grpcurl; it needs credentials as any call does."
    )
    drain_timeout_s: Annotated[float, Field(ge=0, le=600)] = Field(
        5.0, description="How long an orderly shutdown lets calls and streams finish."
    )
    allow_insecure: bool = Field(
        False, description="Serve plaintext beyond loopback. Only for networks that are secured by other means."
    )


class TlsSettings(SettingsModel):
    """TLS of the TCP listeners; off while `certificate` is empty."""

    certificate: NamedPath | None = Field(None, description="PEM file with the server certificate chain.")
    private_key: NamedPath | None = Field(
        None, description="PEM file with its key; one that other users may read is refused."
    )
    client_ca: NamedPath | None = Field(
        None, description="PEM file of the CA whose client certificates are demanded (mutual TLS)."
    )

    @model_validator(mode="after")
    def _pair(self) -> TlsSettings:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key belong together: set both or none")
        if self.client_ca is not None and self.certificate is None:
            raise ValueError("client_ca needs certificate and private_key")
        return self


# The default of `limits.sessions_per_owner`: half of the default of `limits.sessions`.
SESSIONS_PER_OWNER = 32


class LimitSettings(SettingsModel):
    """What one gateway, session or call may use."""

    sessions: Count = Field(64, le=10_000, description="Sessions open at once; each is one worker process.")
    sessions_per_owner: Count = Field(
        SESSIONS_PER_OWNER,
        le=10_000,
        description="Sessions that one owner may have open at once, so that none takes every place; holds where a "
        "plugin authenticates callers. At most `limits.sessions`.",
    )
    pending_commands: Count = Field(128, le=100_000, description="Commands of one session that wait for their answer.")
    command_timeout_s: Seconds = Field(
        30.0, le=3600, description="Deadline of a command; a caller may ask for less, never for more."
    )
    lease_s: Seconds = Field(
        1800.0,
        le=LONGEST_S,
        description="Idle life of a session; any call of its client or an attached stream extends it.",
    )
    maximum_lease_s: Seconds = Field(86_400.0, le=LONGEST_S, description="The longest lease a client may ask for.")
    sweep_interval_s: Seconds = Field(30.0, le=3600, description="How often expired leases are looked for.")
    remembered_sessions: int = Field(
        1000, ge=0, le=100_000, description="Ended sessions whose close reason is remembered for their clients."
    )
    message_bytes: int = Field(
        4 * MIB, ge=64 * 1024, le=64 * MIB, description="Largest gRPC message taken from or sent to a client."
    )
    concurrent_calls: Count = Field(
        1000, le=LARGEST_COUNT, description="Calls and streams served at once; more are refused."
    )
    connection_streams: Count = Field(100, le=LARGEST_COUNT, description="Calls and streams at once on one connection.")
    items_per_call: Count = Field(20_000, le=LARGEST_COUNT, description="Items in one bulk call.")
    text_characters: int = Field(1024, ge=64, le=MIB, description="Longest name or reference in a request.")
    reference_bytes: int = Field(
        4 * MIB,
        ge=64 * 1024,
        le=MOST_REFERENCE_BYTES,
        description="Memory that the references of one session's items may take, definitions and contexts: a byte for "
        "each character, or 2 or 4 where one of a text needs them. One more is refused with `ITEM_LIMIT_REACHED`.",
    )
    failed_attempts_per_minute: float = Field(
        10.0,
        gt=0,
        le=6000,
        description="Failed attempts with keys and at logins, of one peer and for one key id or user, in the long run.",
    )
    failed_attempts_burst: int = Field(
        5, ge=1, le=1000, description="Such failures at once, before the limit is felt; successes do not count."
    )

    memory_bytes: int = Field(
        1024 * MIB,
        ge=64 * MIB,
        le=LARGEST_BYTES,
        description="Memory that the events of all sessions may take: logs, joined messages and backlogs. A session "
        "that may not fit is refused; when those there grow past it, what they keep for later readers goes first. "
        "Large requests that are being served may take a quarter of it besides; more are refused.",
    )

    @model_validator(mode="after")
    def _leases(self) -> LimitSettings:
        if self.lease_s > self.maximum_lease_s:
            raise ValueError("lease_s must not exceed maximum_lease_s")
        return self

    @model_validator(mode="after")
    def _owners_share_the_places(self) -> LimitSettings:
        # The default of sessions_per_owner can be larger than the sessions of a small gateway. This is no mistake: then
        # `sessions` is the limit.
        if self.sessions < self.sessions_per_owner != SESSIONS_PER_OWNER:
            raise ValueError(
                f"sessions_per_owner is {self.sessions_per_owner}, more than sessions, {self.sessions}: lower it, or "
                "raise sessions"
            )
        return self


class EventSettings(SettingsModel):
    """How events are kept for subscribers and sent to them."""

    queue_events: Count = Field(
        10_000, le=LARGEST_COUNT, description="Events a subscriber may fall behind before its overflow policy is asked."
    )
    queue_bytes: Count = Field(8 * MIB, le=LARGEST_BYTES, description="The same limit in bytes.")
    queue_seconds: float = Field(
        0.0, ge=0, le=86_400, description="The same limit as age of the oldest unread event; 0 switches it off."
    )
    unattached_events: Count = Field(
        20_000,
        le=LARGEST_COUNT,
        description="Events held before the first subscriber attaches, so that none is lost in between.",
    )
    unattached_bytes: Count = Field(16 * MIB, le=LARGEST_BYTES, description="The same limit in bytes.")
    batch_bytes: int = Field(
        512 * 1024, ge=1024, le=16 * MIB, description="Most bytes of events in one message to a subscriber."
    )
    heartbeat_interval_s: Annotated[float, Field(ge=1, le=60)] = Field(
        5.0, description="Silence after which a stream carries a heartbeat."
    )
    overflow_drain_s: Seconds = Field(
        5.0, le=3600, description="How long a subscriber that overflowed may still take to read what was queued for it."
    )
    history_page_timeout_s: Seconds = Field(
        10.0,
        le=600,
        description="How long a plugin's history store may take for one page of older events, and to say what it has "
        "(at most 5 s); then it counts as failed.",
    )
    follow_bytes: int = Field(
        32 * MIB,
        ge=MIB,
        le=LARGEST_BYTES,
        description="Memory of one session's log that is held for plugins that follow the session, until they have "
        "acknowledged it; beyond it the oldest events are released, and a plugin that has not read them gets a gap.",
    )
    follow_total_bytes: int = Field(
        256 * MIB,
        ge=MIB,
        le=LARGEST_BYTES,
        description="The same limit for all sessions together; the session that holds the most releases first.",
    )


class WorkerSettings(SettingsModel):
    """The worker processes."""

    python: NamedPath | None = Field(
        None,
        description="Program of the Python that runs the workers, for example a 32-bit one beside a 64-bit gateway; "
        "the gateway's own while unset. Relative to the working directory.",
    )
    start_timeout_s: Seconds = Field(
        20.0, le=600, description="From the start of a process until its backend is ready."
    )
    parallel_starts: Count = Field(
        4,
        le=256,
        description="Worker processes that start at once; more wait their turn. Waiting for a "
        "slow source is no part of it.",
    )
    warm_pool: int = Field(
        0,
        ge=0,
        le=64,
        description="Workers started ahead of the sessions that will take them, about 25 MiB each: OpenSession then "
        "takes 10 to 25 ms instead of 100.",
    )
    heartbeat_interval_s: Annotated[float, Field(ge=0.1, le=60)] = Field(
        1.0, description="How often a worker is asked for a sign of life; after 2.5 of these it counts as silent."
    )
    stop_grace_s: Seconds = Field(3.0, le=60, description="How long a worker may take to leave before it is killed.")
    outbox_events: Count = Field(
        10_000, le=LARGEST_COUNT, description="Events a worker keeps until they are safe in the gateway."
    )
    outbox_bytes: Count = Field(8 * MIB, le=LARGEST_BYTES, description="The same limit in bytes.")
    frame_bytes: int = Field(
        4 * MIB,
        ge=64 * 1024,
        le=64 * MIB,
        description="Largest frame between gateway and worker; longer ones are refused.",
    )
    write_completion_timeout_s: Seconds = Field(
        30.0, le=86_400, description="A write without completion after this long counts as failed."
    )
    read_timeout_s: Seconds = Field(10.0, le=600, description="How long a read waits for a first value.")
    items: Count = Field(
        20_000, le=LARGEST_COUNT, description="Items one worker may hold; MXAccess degrades above this."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="What workers log.")


class BackendSettings(SettingsModel):
    """One named backend, `[backends.<name>]`: its kind, and its options, which the worker validates."""

    model_config = ConfigDict(extra="allow")

    kind: str = Field(
        "",
        description="`sim`, `mxaccess`, `opcua`, or the name of an installed backend; the section's own name if empty.",
    )

    def options(self) -> dict[str, Any]:
        """Return a copy of the backend's options: all keys of its table but `kind`."""
        return copy.deepcopy(self.model_extra or {})


class PluginsSettings(SettingsModel):
    """Which plugins run. Each plugin's own settings are in `[plugins.<name>]`."""

    enabled: tuple[str, ...] = Field((), description="Plugins to load, in this order.")
    required: tuple[str, ...] = Field(
        (),
        description="Enabled plugins without which the gateway must not start or go on. Plugins that decide about "
        "access are always needed for the start.",
    )
    start_timeout_s: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="How long the start waits for the context of each plugin; then the plugin has failed. A call of a "
        "plugin that takes longer, while the gateway starts, ends the process with the exit code 70.",
    )
    stop_timeout_s: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="How long the end waits for the context of each plugin; then the context is cancelled, and left "
        "behind when it does not end even then.",
    )
    slow_call_ms: int = Field(
        100,
        ge=1,
        le=60_000,
        description="While the gateway serves, a call of a plugin that takes longer is counted as slow, and logged.",
    )

    @model_validator(mode="after")
    def _required_is_enabled(self) -> PluginsSettings:
        for name in self.required:
            if name not in self.enabled:
                raise ValueError(f"required plugin {name!r} is not in enabled")
        for name in self.enabled:
            if self.enabled.count(name) > 1:
                raise ValueError(f"plugin {name!r} is enabled twice")
        return self


class Settings(SettingsModel):
    """All settings of a gateway.

    Three fields have another place in a file than in this class, because in a file the named tables are inside a
    section: `default_backend` is the key `default` in `[backends]`, `backends` are the tables `[backends.<name>]`, and
    `plugin_sections` are the tables `[plugins.<name>]`.
    """

    gateway: GatewaySettings = GatewaySettings()
    tls: TlsSettings = TlsSettings()
    limits: LimitSettings = LimitSettings()
    events: EventSettings = EventSettings()
    workers: WorkerSettings = WorkerSettings()
    default_backend: str = Field("sim", description="The backend of sessions that name none.")
    backends: dict[Name, BackendSettings] = Field(
        default_factory=lambda: {"sim": BackendSettings(kind="sim")},
        description="Named backends: `[backends.<name>]`. `sim` alone when none is configured.",
    )
    plugins: PluginsSettings = PluginsSettings()
    plugin_sections: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="The raw `[plugins.<name>]` tables; each plugin validates its own."
    )

    @field_validator("backends")
    @classmethod
    def _kind_defaults_to_name(cls, backends: dict[str, BackendSettings]) -> dict[str, BackendSettings]:
        return {
            name: backend if backend.kind else backend.model_copy(update={"kind": name})
            for name, backend in backends.items()
        }

    @model_validator(mode="after")
    def _sections_fit_together(self) -> Settings:
        problems = (*self._too_large_messages(), *self._too_little_memory(), *self._missing_default_backend())
        if problems:
            raise SettingsConflict(problems)
        return self

    def _too_large_messages(self) -> Iterator[tuple[Path, str]]:
        message_bytes = self.limits.message_bytes
        for key, size in (
            (("workers", "frame_bytes"), self.workers.frame_bytes),
            (("events", "batch_bytes"), self.events.batch_bytes),
        ):
            name = ".".join(key)
            if size > message_bytes:
                yield (
                    self._changed(("limits", "message_bytes"), key),
                    f"limits.message_bytes is {message_bytes} and {name} is {size}: a message could not carry it; "
                    f"lower {name}, or raise limits.message_bytes",
                )

    def _too_little_memory(self) -> Iterator[tuple[Path, str]]:
        memory, session = self.limits.memory_bytes, self.events.unattached_bytes
        if session > memory // 2:
            yield (
                self._changed(("limits", "memory_bytes"), ("events", "unattached_bytes")),
                f"limits.memory_bytes is {memory} and events.unattached_bytes is {session}, more than half of it: "
                "hardly a session could be opened; lower events.unattached_bytes, or raise limits.memory_bytes",
            )

    def _missing_default_backend(self) -> Iterator[tuple[Path, str]]:
        if self.default_backend not in self.backends:
            yield ("backends", "default"), unknown_default_backend(self.default_backend, self.backends)

    def _changed(self, *keys: Path) -> Path:
        """Return the last key whose value is not its default, or the last of all keys when no value was changed."""
        defaults = type(self).model_fields
        changed = [
            (section, name)
            for section, name in keys
            if getattr(getattr(self, section), name) != getattr(defaults[section].default, name)
        ]
        return (changed or keys)[-1]


def unknown_default_backend(name: str, backends: Iterable[str]) -> str:
    """Return the sentence that reports a default backend which the settings do not define."""
    return f"{name!r} is not configured: add [backends.{name}], or name one of: {', '.join(sorted(backends))}"


__all__ = [
    "BackendSettings",
    "EventSettings",
    "GatewaySettings",
    "LimitSettings",
    "PluginsSettings",
    "SecretStr",
    "Settings",
    "SettingsConflict",
    "SettingsModel",
    "TlsSettings",
    "WorkerSettings",
    "unknown_default_backend",
]
