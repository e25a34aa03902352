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


def plain_refusal(error: GatewayError) -> GatewayError:
    """Return the error that a plugin raised on purpose; a copy, if its class is one of the plugin's own. So no code of
    the plugin runs when the error is sent.

    The error may have any length and any characters: whoever sends it bounds them (`mxgw_core.rpc.statuses`).

    Raises:
        WrongAnswer: it cannot be sent: its text, or something in its metadata, is not a text that can be encoded; or
            `retry_after_s` is no time.
    """
    kind = next(base for base in type(error).__mro__ if base.__module__ == errors.__name__)
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
    if kind is type(error):
        # The attributes can have been set to values of classes of the plugin's own.
        vars(error).update({name: value for name, value in values.items() if value is not getattr(error, name)})
        return error
    plain: GatewayError = kind.__new__(kind)
    GatewayError.__init__(
        plain, values["message"], metadata=values["metadata"], retry_after_s=values["retry_after_s"]
    )
    plain.reason = values["reason"]
    if isinstance(plain, SessionEnded):
        plain.close_reason = values["metadata"].get("close_reason", "")
    return plain.with_traceback(error.__traceback__)


def _name_of(kind: type, error: GatewayError) -> str:
    return kind.__name__ if kind is type(error) else f"an error derived from {kind.__name__}"
