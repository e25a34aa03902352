"""The settings of `[plugins.acl]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from mxgw_acl.keyformat import ENVIRONMENT

Seconds = Annotated[float, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


class AuditSettings(_Section):
    """The settings of the audit log, which is the file `audit.jsonl` in the private directory."""

    on_failure: Literal["deny", "serve"] = Field(
        "deny",
        description="When a decision cannot be recorded: deny the call, or go on without the record (and log that).",
    )


class LdapSettings(_Section):
    """The settings of the LDAP directory in which operators have their accounts."""

    servers: tuple[str, ...] = Field(
        min_length=1,
        description="`ldaps://host[:port]`, or `ldap://host[:port]` with StartTLS; asked in this order.",
    )
    ca_file: Path | None = Field(
        None,
        description="PEM file of the CA to trust, relative to `gateway.data_dir`; unset: those of the system.",
    )
    bind: Literal["search", "direct"] = Field(
        "search",
        description="search: look the user up with the service account, then bind as what was found. direct: bind as "
        "`user_dn` at once.",
    )
    service_dn: str = Field("", description="The account that searches; it needs to read, nothing else.")
    service_password: SecretStr = Field(SecretStr(""), description="Its password; belongs in .secrets.toml.")
    user_dn: str = Field(
        "", description="direct: the DN of a user, with `{user}` for the name, as in uid={user},ou=people,dc=plant."
    )
    user_base: str = Field("", description="search: where users are.")
    user_filter: str = Field("(uid={user})", description="search: the filter of a user, with `{user}` for the name.")
    group_base: str = Field("", description="Where groups are; needed for nested groups.")
    groups: Literal["memberof", "nested", "ad_chain", "ad_token_groups"] = Field(
        "memberof",
        description="memberof: the groups named by the user's entry. nested: also the groups these are in, found by "
        "`member`. ad_chain: nested groups by Active Directory's matching rule. ad_token_groups: nested "
        "security groups by its tokenGroups. Both turn to nested where the server cannot, or is slow.",
    )
    group_depth: int = Field(5, ge=1, le=20, description="nested: how many groups deep.")
    connect_timeout_s: Seconds = Field(3.0, le=30, description="Time for a connection to one server.")
    receive_timeout_s: Seconds = Field(5.0, le=60, description="Time for one answer of it.")
    login_timeout_s: Seconds = Field(12.0, le=120, description="Time for a whole login, whatever the servers do.")
    chain_timeout_s: Seconds = Field(
        3.0, le=60, description="ad_chain and ad_token_groups: time for one answer, before nested takes over."
    )
    cache_s: float = Field(300.0, ge=0, le=3600, description="How long the groups of a user are remembered.")
    insecure: bool = Field(
        False, description="Plain text, without TLS. Passwords cross the network readable: for experiments only."
    )

    @field_validator("servers")
    @classmethod
    def _urls(cls, servers: tuple[str, ...]) -> tuple[str, ...]:
        for server in servers:
            scheme, separator, rest = server.partition("://")
            if scheme not in ("ldap", "ldaps") or not separator or not rest.strip("/"):
                raise ValueError(f"{server!r} must be ldaps://host[:port] or ldap://host[:port]")
        return servers

    @model_validator(mode="after")
    def _complete(self) -> LdapSettings:
        if self.insecure and any(server.startswith("ldaps:") for server in self.servers):
            raise ValueError("insecure is for ldap:// without TLS; with ldaps:// leave it off")
        if self.bind == "direct" and "{user}" not in self.user_dn:
            raise ValueError("bind = direct needs user_dn with {user} in it")
        if self.bind == "search" and (not self.user_base or "{user}" not in self.user_filter):
            raise ValueError("bind = search needs user_base, and user_filter with {user} in it")
        if self.service_dn and not self.service_password.get_secret_value():
            raise ValueError("service_dn needs service_password; put it into .secrets.toml")
        if self.groups != "memberof" and not self.group_base:
            raise ValueError(f"groups = {self.groups} needs group_base")
        return self


class OperatorSettings(_Section):
    """The roles that groups give to operators, and how long tokens and logins are valid.

    A group is named by its DN, or by the value of the first part of its DN (the cn).
    """

    administrators: tuple[str, ...] = Field((), description="Groups whose members see and do everything.")
    viewers: tuple[str, ...] = Field(
        (), description="Groups whose members see the sessions of their tags, and change nothing."
    )
    token_minutes: float = Field(
        15.0, gt=0, le=60, description="Life of a token; the dashboard renews it, and groups are asked for anew."
    )
    login_hours: float = Field(
        12.0, gt=0, le=168, description="Life of a login: no renewal after that, so the password is asked for again."
    )


class AclSettings(_Section):
    """The settings of API keys, operators and the audit log."""

    directory: Path = Field(
        Path("acl"),
        description="Private directory (mode 0700) of the keys, the pepper and the audit log. Relative to "
        "`gateway.data_dir`.",
    )
    environment: str = Field(
        "site", description="Part of each key, so that a key of the test plant is not mistaken for one of production."
    )
    check_interval_s: float = Field(
        1.0, gt=0, le=4, description="How soon the streams of a revoked key end; its next call is refused anyway."
    )
    close_revoked_sessions: bool = Field(
        True,
        description="Whether the sessions of a revoked or expired key are closed; `keys revoke` may say otherwise.",
    )
    audit: AuditSettings = Field(AuditSettings(), description="The audit log.")
    ldap: LdapSettings | None = Field(None, description="The directory of the operators; none: nobody can log in.")
    operators: OperatorSettings = Field(OperatorSettings(), description="The roles of groups.")
    group_to_session_tag: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="Which session tags the members of a group may see. A viewer whose groups are not here sees none.",
    )

    @field_validator("directory", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        # An empty relative path would name the data directory itself.
        if isinstance(value, str) and not value.strip():
            raise ValueError("is empty: name a directory, or leave the setting out")
        return value

    @field_validator("environment")
    @classmethod
    def _environment(cls, value: str) -> str:
        if ENVIRONMENT.fullmatch(value) is None:
            raise ValueError("must be 1 to 16 lower case letters and digits")
        return value

    @field_validator("group_to_session_tag", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        if isinstance(value, dict):
            return {group: _many(tags) for group, tags in value.items()}
        return value


def _many(tags: object) -> object:
    """Return one tag or a list of tags as a tuple. Return anything else unchanged; pydantic then refuses it."""
    if isinstance(tags, str):
        return (tags,)
    return tuple(tags) if isinstance(tags, list) else tags
