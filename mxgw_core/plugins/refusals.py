"""The errors that plugins raise on purpose, as the gateway uses them: of classes of the API, with plain values."""

from __future__ import annotations

from collections.abc import Mapping

from mxgw_core.api import errors
from mxgw_core.api.errors import GatewayError, SessionEnded
from mxgw_core.api.hookspecs import Hooks
from mxgw_core.api.ranges import range_problem
from mxgw_core.plugins.answers import WrongAnswer, check_of

# These hooks return nothing, and still refuse something with an exception.
_REFUSE = frozenset({"mxgw_decided", "mxgw_worker_spawning", "mxgw_worker_started", "mxgw_worker_proved"})
# Hooks that only report what has happened. There is nothing that they could refuse, so a `GatewayError` of theirs is a
# failure like any other exception.
REPORTS = frozenset(
    name
    for name, hook in vars(Hooks).items()
    if name.startswith("mxgw_") and hook.__annotations__["return"] == "None" and name not in _REFUSE
)

# Key: an attribute of `GatewayError`. Value: the check of its values.
_CHECKS = {
    "message": check_of(str, "str"),
    "reason": check_of(str, "str"),
    "metadata": check_of(Mapping[str, str], "Mapping[str, str]"),
    "retry_after_s": check_of(float | None, "float | None"),
}


# What every class has, and what runs only when the plugin makes the error.
_WITHOUT_EFFECT = frozenset(
    {
        *("__module__", "__qualname__", "__doc__", "__annotations__", "__weakref__", "__dict__", "__init__"),
        *("__firstlineno__", "__static_attributes__"),  # since Python 3.13
    }
)


def plain_refusal(error: GatewayError) -> GatewayError:
    """Return the error that a plugin raised on purpose; a copy, if its class has code of the plugin that would run when
    the error is sent.

    The error may have any length and any characters: whoever sends it bounds them (`mxgw_core.rpc.statuses`).

    Raises:
        WrongAnswer: it cannot be sent: its text, or something in its metadata, is not a text that can be encoded; or
            `retry_after_s` is no time.
    """
    kind: type[GatewayError] = next(base for base in type(error).__mro__ if base.__module__ == errors.__name__)
    values = {}
    for name, check in _CHECKS.items():
        try:
            values[name] = check(getattr(error, name))
        except WrongAnswer as wrong:
            text = str(wrong).removeprefix("returned ")
            raise WrongAnswer(f"raised {_name_of(kind, error)} whose {name} is {text}") from None
    retry_after_s = values["retry_after_s"]
    if retry_after_s is not None and (problem := range_problem(retry_after_s)):
        raise WrongAnswer(f"raised {_name_of(kind, error)} whose retry_after_s is {problem}")
    if _is_harmless(type(error), kind):
        # The attributes can have been set to values of classes of the plugin's own.
        vars(error).update({name: value for name, value in values.items() if value is not getattr(error, name)})
        return error
    plain: GatewayError = kind.__new__(kind)
    GatewayError.__init__(plain, values["message"], metadata=values["metadata"], retry_after_s=values["retry_after_s"])
    plain.reason = values["reason"]
    if isinstance(plain, SessionEnded):
        plain.close_reason = values["metadata"].get("close_reason", "")
    return plain.with_traceback(error.__traceback__)


def _is_harmless(derived: type, kind: type) -> bool:
    """Return whether a class that is derived from a class of the API overrides nothing that the gateway uses."""
    if type(derived) is not type:
        return False
    for base in derived.__mro__[: derived.__mro__.index(kind)]:
        for name, value in vars(base).items():
            is_special = name.startswith("__") and name not in _WITHOUT_EFFECT
            if is_special or ((name in _CHECKS or hasattr(kind, name)) and type(value) is not str and name[:2] != "__"):
                return False
    return True


def _name_of(kind: type, error: GatewayError) -> str:
    return kind.__name__ if kind is type(error) else f"an error derived from {kind.__name__}"
