"""Failed attempts: some at once, then so many a minute, each peer and each name for itself, in a bounded table."""

from __future__ import annotations

import asyncio
import itertools
import threading
import tracemalloc
from contextlib import suppress

import pytest
from support.plugins import InstallPlugin

from mxgw_core.api import (
    LONGEST_NAME,
    Attempts,
    Operator,
    OperatorCredentials,
    Peer,
    TokenBucket,
    folded_name,
    hookimpl,
)
from mxgw_core.api.errors import DependencyUnavailable, GatewayError, TooManyAttempts
from mxgw_core.testing import running_gateway

HERE = Peer("10.0.0.9:1234", is_local=False)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def peer(number: int) -> Peer:
    return Peer(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:1", is_local=False)


def refused_for_s(attempts: Attempts, peer: Peer, name: str = "") -> float:
    """Begin an attempt that fails; return for how long it is refused, 0 when it is heard."""
    try:
        attempts.begin(peer, name)
    except TooManyAttempts as refusal:
        return refusal.retry_after_s or 0.0
    return 0.0


def test_a_burst_is_within_the_limit_and_the_next_is_told_how_long_to_wait() -> None:
    clock = Clock()
    attempts = Attempts(10, 5, clock=clock)

    assert [refused_for_s(attempts, HERE) for _ in range(5)] == [0.0] * 5
    assert refused_for_s(attempts, HERE) == pytest.approx(6.0)

    clock.now += 3

    assert refused_for_s(attempts, HERE) == pytest.approx(3.0)

    clock.now += 3.1

    assert refused_for_s(attempts, HERE) == 0.0


def test_how_much_is_remembered_of_a_name_does_not_depend_on_its_length() -> None:
    def held_bytes(name: str) -> int:
        attempts = Attempts(10, 5, clock=Clock())
        tracemalloc.start()
        try:
            for number in range(500):
                refused_for_s(attempts, peer(number), f"user {name}{number}")
            return tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()

    assert held_bytes("\N{GRINNING FACE}" * 240) < held_bytes("a") + 100 * 500


def test_a_rate_is_kept_in_the_long_run_however_often_it_is_tried() -> None:
    clock = Clock()
    attempts = Attempts(10, 5, clock=clock)
    heard = 0
    for _ in range(6000):  # ten a second, for ten minutes
        heard += refused_for_s(attempts, HERE) == 0.0
        clock.now += 0.1

    assert 100 <= heard <= 106


def test_peers_and_names_are_counted_apart_and_one_of_them_is_enough() -> None:
    attempts = Attempts(1, 1)

    assert refused_for_s(attempts, peer(1), "user anna") == 0.0
    assert refused_for_s(attempts, peer(2)) == 0.0
    assert refused_for_s(attempts, peer(3), "user anna") > 0
    assert refused_for_s(attempts, peer(3), "user vera") == 0.0  # what is refused counts for nobody


def test_a_success_is_taken_back_and_failures_before_it_still_count() -> None:
    attempts = Attempts(1, 2)
    attempts.begin(HERE, "user anna")
    for _ in range(5):
        attempts.begin(HERE, "user anna").succeeded()
    attempts.begin(HERE, "user anna")

    assert refused_for_s(attempts, HERE, "user anna") > 0


@pytest.mark.parametrize(
    "spelling",
    [
        "ALICE",
        "aLiCe",
        " alice ",
        "\uff41\uff4c\uff49\uff43\uff45",
        "a\u00adlice",
        "\u200balice",
        "al\u00edce",
        "a\u0301lice",
    ],
)
def test_spellings_of_one_name_are_one_name(spelling: str) -> None:
    assert folded_name(spelling) == "alice"


def test_other_names_are_others() -> None:
    assert len({folded_name(name) for name in ("alice", "alice2", "al ice", "bob", "")}) == 5
    assert folded_name("anna  maria") == folded_name("Anna Maria")
    assert folded_name("stra\u00dfe") == folded_name("STRASSE")
    assert len(folded_name("\ufdfa" * 10_000)) <= LONGEST_NAME + 16


@pytest.mark.parametrize("filler", [" ", "\u3000", "\u200b", "\u0301"])
def test_what_a_directory_ignores_makes_no_other_name_of_one_however_much_of_it_there_is(filler: str) -> None:
    longest = filler * (LONGEST_NAME - len("alice")) + "alice"

    assert folded_name(f"user {longest}") == "user alice"


def test_names_too_long_to_be_asked_for_share_a_count() -> None:
    attempts = Attempts(1, 2)

    assert [refused_for_s(attempts, peer(i), f"user {'x' * LONGEST_NAME}{i}") > 0 for i in range(3)] == [
        False,
        False,
        True,
    ]
    assert refused_for_s(attempts, peer(9), f"user {'x' * LONGEST_NAME}") == 0.0


def test_failures_with_keys_over_a_unix_socket_do_not_keep_operators_out() -> None:
    attempts, socket = Attempts(1, 2), Peer("unix", is_local=True)
    for number in range(3):
        refused_for_s(attempts, socket, f"key {number}")

    assert refused_for_s(attempts, socket, "key 9") > 0
    assert refused_for_s(attempts, socket, "user anna") == 0.0
    assert refused_for_s(attempts, socket, "user vera") == 0.0
    assert refused_for_s(attempts, socket, "user nora") > 0


def test_names_under_attack_keep_their_count_while_others_fill_the_table() -> None:
    attempts = Attempts(1, 2, clock=Clock(), capacity=100)
    while refused_for_s(attempts, peer(0), "user anna") == 0.0:
        pass
    for number in range(1, 5_000):
        refused_for_s(attempts, peer(number), f"user {number}")
        refused_for_s(attempts, peer(number), f"user {number}")

    assert len(attempts) <= 100 + 256
    assert refused_for_s(attempts, peer(5_000), "user anna") > 0
    assert refused_for_s(attempts, peer(0), "user vera") > 0
    # There is no place for more: who comes now shares a count, and a name that comes again finds the one it had.
    assert refused_for_s(attempts, peer(6_000), "user 4999") > 0


def test_who_is_as_good_as_new_makes_place() -> None:
    clock = Clock()
    attempts = Attempts(60, 1, clock=clock, capacity=100)
    for number in range(49):
        attempts.begin(peer(number), f"user {number}")
    clock.now += 60
    attempts.begin(peer(100), "user anna")
    attempts.begin(peer(101), "user vera")

    assert len(attempts) == 4


def test_what_is_refused_takes_no_place() -> None:
    attempts = Attempts(1, 1)
    attempts.begin(HERE)
    for number in range(1000):
        assert refused_for_s(attempts, HERE, f"user {number}") > 0

    assert len(attempts) == 1


def test_a_bucket_gives_what_is_there_and_what_is_owed_comes_first() -> None:
    clock = Clock()
    bucket = TokenBucket(10, 20, clock=clock)
    bucket.spend(50)

    assert bucket.wait_s() == pytest.approx(3.1)

    clock.now += 3600

    assert bucket.is_full
    assert bucket.wait_s() == 0

    bucket.give_back(100)
    bucket.spend(20)

    assert bucket.wait_s() == pytest.approx(0.1)


# a whole gateway


class Directory:
    """A plugin that knows nobody, and answers when it is let."""

    def __init__(self) -> None:
        self.asked = 0
        self.users: set[str] = set()
        self.lock = threading.Lock()
        self.may_answer = threading.Event()
        self.answer: Operator | Exception | None = None

    @hookimpl
    def mxgw_authenticate_operator(self, credentials: OperatorCredentials) -> Operator | None:
        with self.lock:
            self.asked += 1
            self.users.add(credentials.user)
        assert self.may_answer.wait(30)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.asyncio
async def test_guesses_side_by_side_in_all_spellings_are_within_the_limit(
    install_plugin: InstallPlugin,
) -> None:
    directory = Directory()
    spellings = ["".join(p) for p in itertools.product(*((c, c.upper()) for c in "alice"))]
    async with running_gateway(
        {"plugins.enabled": [install_plugin("directory", directory)], "limits.failed_attempts_per_minute": 0.001}
    ) as gateway:

        async def guess(number: int) -> str:
            # Each from a machine of its own: the name alone must do.
            credentials = OperatorCredentials(spellings[number % len(spellings)], f"guess {number}", peer(number))
            try:
                return str(await gateway.api.authenticate_operator(credentials))
            except GatewayError as refusal:
                return refusal.reason

        async with asyncio.TaskGroup() as tasks:
            guesses = [tasks.create_task(guess(number)) for number in range(96)]
            await asyncio.sleep(0)  # all are under way
            directory.may_answer.set()

    assert directory.asked == 5
    assert sorted(task.result() for task in guesses) == ["None"] * 5 + ["TOO_MANY_ATTEMPTS"] * 91


@pytest.mark.asyncio
@pytest.mark.parametrize("blank", [" ", "\t", "\u3000"])
async def test_a_name_is_counted_as_it_is_asked_for_however_many_blanks_are_around_it(
    install_plugin: InstallPlugin, blank: str
) -> None:
    directory = Directory()
    directory.may_answer.set()
    async with running_gateway(
        {"plugins.enabled": [install_plugin("directory", directory)], "limits.failed_attempts_per_minute": 0.001}
    ) as gateway:
        for number in range(20):
            user = f"{blank * 100 * number}alice{blank * number}"
            with suppress(GatewayError):
                await gateway.api.authenticate_operator(OperatorCredentials(user, "secret", peer(number)))

    assert (directory.asked, directory.users) == (5, {"alice"})


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("answer", "heard"),
    [
        (Operator("alice", ("viewer",), token="t"), 20),
        (DependencyUnavailable("not there"), 20),
        (None, 5),
        (RuntimeError("broken"), 5),
        (GatewayError("wrong"), 5),
    ],
)
async def test_only_what_says_nothing_of_the_password_is_not_counted(
    install_plugin: InstallPlugin, answer: Operator | Exception | None, heard: int
) -> None:
    directory = Directory()
    directory.answer = answer
    directory.may_answer.set()
    async with running_gateway(
        {"plugins.enabled": [install_plugin("directory", directory)], "limits.failed_attempts_per_minute": 0.001}
    ) as gateway:
        for _ in range(20):
            with suppress(GatewayError):
                await gateway.api.authenticate_operator(OperatorCredentials("alice", "secret", HERE))

    assert directory.asked == heard
