"""Operators' tokens: worth something while their login is, to this gateway, as they were issued, and no longer."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from mxgw_acl.tokens import PREFIX, Tokens
from mxgw_core.api import Operator

SECRET, LIFE_S = b"s" * 32, 900.0


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(clock: Clock) -> Tokens:
    return Tokens(SECRET, LIFE_S, now=clock)


def signed(tokens: Tokens, operator: Operator, change: Callable[[dict[str, object]], object]) -> str:
    """Return a token with other facts and a right signature."""
    body = operator.token.removeprefix(PREFIX).partition(".")[0]
    facts = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    change(facts)
    changed = base64.urlsafe_b64encode(json.dumps(facts).encode()).decode().rstrip("=")
    return f"{PREFIX}{changed}.{tokens._signature(changed)}"


def test_a_token_says_who_it_is_and_shows_itself_in_no_repr(tokens: Tokens) -> None:
    operator = tokens.issue("anna", ["viewer"], ["line4"])
    login = tokens.login(operator.token)

    assert login is not None
    assert (login.operator.name, login.operator.roles, login.operator.tags) == ("anna", ("viewer",), ("line4",))
    assert operator.token not in repr(operator) + repr(login)


def test_a_token_is_worth_nothing_from_its_end_on(tokens: Tokens, clock: Clock) -> None:
    operator = tokens.issue("anna", ["viewer"], [])
    clock.now += LIFE_S - 0.001

    assert tokens.login(operator.token) is not None

    clock.now += 0.001

    assert tokens.login(operator.token) is None
    assert tokens.current(operator) is None
    # Also to a gateway that has just started, and remembers nobody.
    assert Tokens(SECRET, LIFE_S, now=clock).login(operator.token) is None


def test_a_changed_token_and_one_of_another_gateway_are_worth_nothing(tokens: Tokens, clock: Clock) -> None:
    operator = tokens.issue("anna", ["viewer"], [])
    token = operator.token
    body, _, signature = token.removeprefix(PREFIX).partition(".")
    other = Tokens(b"t" * 32, LIFE_S, now=clock).issue("anna", ["administrator"], [])
    for bad in (
        other.token,
        token[:-1],
        f"{PREFIX}{body}.",
        f"{PREFIX}{body}",
        f"{PREFIX}.{signature}",
        f"{PREFIX}{body[:-2]}AA.{signature}",
        body,
        "",
        PREFIX,
        f"{PREFIX}\N{GREEK SMALL LETTER ALPHA}.{signature}",
    ):
        assert tokens.login(bad) is None, bad


def test_a_signed_word_for_another_purpose_is_no_token(tokens: Tokens) -> None:
    operator = tokens.issue("anna", ["viewer"], [])

    assert tokens.login(signed(tokens, operator, lambda facts: facts)) is not None
    assert tokens.login(signed(tokens, operator, lambda facts: facts.update(aud="something else"))) is None


def test_an_older_token_counts_as_what_its_login_is_now(tokens: Tokens, clock: Clock) -> None:
    first = tokens.issue("anna", ["administrator"], ["line4"])
    login = tokens.login(first.token)

    assert login is not None

    clock.now += 10
    second = tokens.issue("anna", ["viewer"], ["line5"], login)
    now = tokens.login(first.token)

    assert now is not None
    assert now.operator == second
    assert now.began_at == clock.now - 10

    # A stream that began with the first goes on for as long as its login is renewed.
    clock.now += LIFE_S - 5

    assert tokens.login(first.token) is None
    assert tokens.current(first) == second

    clock.now += 5

    assert tokens.current(first) is None


def test_ended_logins_and_all_of_a_person_until_a_time_are_over(clock: Clock) -> None:
    ended: set[str] = set()
    cuts: dict[str, float] = {}
    tokens = Tokens(
        SECRET,
        LIFE_S,
        now=clock,
        is_ended=ended.__contains__,
        ended_before=lambda name: cuts.get(name, 0.0),
    )
    one, other = tokens.issue("anna", ["viewer"], []), tokens.issue("anna", ["viewer"], [])
    login = tokens.login(one.token)

    assert login is not None

    ended.add(login.login_id)

    assert tokens.login(one.token) is None
    assert tokens.login(other.token) is not None

    clock.now += 1
    cuts["anna"] = clock.now

    assert tokens.login(other.token) is None
    assert tokens.login(tokens.issue("anna", ["viewer"], []).token) is not None


def test_an_operator_without_a_token_of_ours_is_nobody(tokens: Tokens) -> None:
    operator = tokens.issue("anna", ["administrator"], [])

    assert tokens.current(replace(operator, token="")) is None
    assert tokens.current(replace(operator, token="x")) is None
