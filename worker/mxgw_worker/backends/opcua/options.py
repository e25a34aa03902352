"""The options of the OPC UA backend, with defaults and ranges. They are checked before the backend connects."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from mxgw_worker.backends.base import BackendUnavailable

from .trust import ERRORS

POLICIES = ("None", "Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss")
MODES = ("None", "Sign", "SignAndEncrypt")
TRIGGERS = ("status_value", "status_value_timestamp", "status")

# Key: option. Value: its smallest and its largest allowed value.
_RANGES: dict[str, tuple[float, float]] = {
    "connect_timeout_s": (0.1, 300),
    "request_timeout_s": (0.1, 600),
    "session_timeout_s": (5, 86_400),
    "channel_lifetime_s": (1, 86_400),
    "publishing_interval_ms": (1, 3_600_000),
    "sampling_interval_ms": (-1, 3_600_000),
    "buffered_interval_ms": (1, 3_600_000),
    "queue_size": (1, 1_000_000),
    "keep_alive_s": (0.1, 600),
    "subscription_lifetime_s": (1, 86_400),
    "probe_interval_s": (0.1, 600),
    "reconnect_max_delay_s": (0.1, 600),
    "retry_failed_s": (0.1, 86_400),
    "max_items_per_call": (1, 100_000),
    "publish_requests": (1, 20),
}


@dataclass(frozen=True, slots=True)
class OpcUaOptions:
    """The options in `[backends.<name>]` for kind `opcua`; docs/backends/opcua.md explains each."""

    url: str
    security_policy: str = "None"
    security_mode: str = ""
    certificate: str = ""
    private_key: str = ""
    private_key_password: str = field(default="", repr=False)
    server_certificate: str = ""
    trusted_certificates: str = ""
    trust_any_server_certificate: bool = False
    tolerated_certificate_errors: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    password_file: str = ""
    allow_plaintext_password: bool = False
    user_certificate: str = ""
    user_private_key: str = ""
    user_private_key_password: str = field(default="", repr=False)
    application_name: str = "mxgw"
    application_uri: str = ""
    connect_timeout_s: float = 10.0
    request_timeout_s: float = 10.0
    session_timeout_s: float = 120.0
    channel_lifetime_s: float = 3600.0
    publishing_interval_ms: float = 100.0
    sampling_interval_ms: float = 0.0
    buffered_interval_ms: float = 1000.0
    queue_size: int = 1000
    trigger: str = "status_value"
    keep_alive_s: float = 5.0
    subscription_lifetime_s: float = 300.0
    probe_interval_s: float = 2.0
    reconnect_max_delay_s: float = 10.0
    retry_failed_s: float = 30.0
    max_items_per_call: int = 1000
    publish_requests: int = 3

    @classmethod
    def parse(cls, options: Mapping[str, object]) -> OpcUaOptions:
        """Return the checked options.

        Raises:
            BackendUnavailable: an option is unknown, has a wrong type or range, or contradicts another option.
        """
        fields = {entry.name: entry for entry in dataclasses.fields(cls)}
        values: dict[str, object] = {}
        for name, raw in options.items():
            if name not in fields:
                close = difflib.get_close_matches(name, fields, n=1)
                hint = f"did you mean {close[0]!r}?" if close else "see docs/backends/opcua.md for the list"
                raise BackendUnavailable(f"opcua: unknown option {name!r}; {hint}")
            values[name] = _typed(name, raw, str(fields[name].type))
        if not values.get("url"):
            raise BackendUnavailable("opcua: option 'url' is missing, for example opc.tcp://192.0.2.10:4840")
        parsed = cls(**values)  # type: ignore[arg-type]  # every value was checked against its field just above
        parsed._check()
        return parsed

    @property
    def mode(self) -> str:
        """The security mode that is set; without a setting, the strictest mode that the security policy allows."""
        return self.security_mode or ("None" if self.security_policy == "None" else "SignAndEncrypt")

    @property
    def tolerated(self) -> frozenset[str]:
        """The names in `tolerated_certificate_errors`."""
        return frozenset(self.tolerated_certificate_errors.replace(",", " ").split())

    def login_password(self) -> str:
        """Return the password, from the option `password` or from the file `password_file`.

        Raises:
            BackendUnavailable: the file cannot be read.
        """
        if not self.password_file:
            return self.password
        try:
            return Path(self.password_file).read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            raise BackendUnavailable(f"opcua: cannot read password_file {self.password_file}: {error}") from error

    def _check(self) -> None:
        _check_url(self.url)
        _one_of("security_policy", self.security_policy, POLICIES)
        _one_of("security_mode", self.mode, MODES)
        _one_of("trigger", self.trigger, TRIGGERS)
        secure = self.security_policy != "None"
        if secure != (self.mode != "None"):
            raise BackendUnavailable(
                f"opcua: security_policy {self.security_policy!r} does not go with security_mode {self.mode!r}; "
                "set both to None or neither"
            )
        if secure and not (self.certificate and self.private_key):
            raise BackendUnavailable(
                f"opcua: security_policy {self.security_policy!r} needs the files 'certificate' and 'private_key'"
            )
        if secure and not (self.server_certificate or self.trusted_certificates or self.trust_any_server_certificate):
            raise BackendUnavailable(
                "opcua: nothing says which server certificate to trust; set 'server_certificate' (the server's own), "
                "'trusted_certificates' (a directory), or for tests 'trust_any_server_certificate = true'"
            )
        for name in sorted(self.tolerated):
            _one_of("tolerated_certificate_errors:", name, ERRORS)
        if self.password and self.password_file:
            raise BackendUnavailable("opcua: set 'password' or 'password_file', not both")
        if (self.password or self.password_file) and not self.user:
            raise BackendUnavailable("opcua: a password is set but 'user' is not")
        if bool(self.user_certificate) != bool(self.user_private_key):
            raise BackendUnavailable("opcua: 'user_certificate' and 'user_private_key' go together; one is missing")
        if self.user and self.user_certificate:
            raise BackendUnavailable("opcua: set 'user' or 'user_certificate', not both")
        for name in ("certificate", "private_key", "server_certificate", "user_certificate", "user_private_key"):
            path = str(getattr(self, name))
            if path and not Path(path).is_file():
                raise BackendUnavailable(f"opcua: {name} {path!r} is not a file that can be read")
        if self.trusted_certificates and not Path(self.trusted_certificates).exists():
            raise BackendUnavailable(f"opcua: trusted_certificates {self.trusted_certificates!r} does not exist")
        if self.subscription_lifetime_s < 3 * self.keep_alive_s:
            raise BackendUnavailable("opcua: subscription_lifetime_s must be at least three times keep_alive_s")


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme == "opc.tcp" and bool(parts.hostname) and parts.port is not None
    except ValueError:
        usable = False
        parts = None
    if parts is not None and "@" in parts.netloc:
        raise BackendUnavailable("opcua: the url carries a login; use the options 'user' and 'password' instead")
    if not usable:
        raise BackendUnavailable(f"opcua: url {url!r} is not of the form opc.tcp://host:port[/path]")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise BackendUnavailable(f"opcua: {name} {value!r} is not one of {', '.join(allowed)}")


def _typed(name: str, raw: object, type_name: str) -> object:
    """Return `raw` as the type of the field. Numbers and truth values are also accepted as texts, because environment
    variables hold only text.

    The value is never part of an error text, because it can be a secret that was put under the wrong name.
    """
    match type_name:
        case "str":
            if isinstance(raw, str | Path):
                return str(raw)
        case "bool":
            if isinstance(raw, bool):
                return raw
            if isinstance(raw, str) and raw.strip().lower() in ("true", "false"):
                return raw.strip().lower() == "true"
        case _:
            number = _number(raw)
            if number is not None and (type_name == "float" or number == int(number)):
                low, high = _RANGES[name]
                if not low <= number <= high:
                    raise BackendUnavailable(f"opcua: {name} must lie between {low:g} and {high:g}")
                return int(number) if type_name == "int" else number
    wanted = {"str": "a text", "bool": "true or false", "int": "a whole number"}.get(type_name, "a number")
    raise BackendUnavailable(f"opcua: option {name!r} must be {wanted}")


def _number(raw: object) -> float | None:
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        return None
    try:
        number = float(raw)
    except ValueError:
        return None
    return number if number - number == 0 else None  # NaN and infinity are not accepted.
