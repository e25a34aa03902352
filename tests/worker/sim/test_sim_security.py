"""Users, secured and verified writes.

Source: docs/reference/mxaccess.md#write-outcomes, #operator-and-supervisory, #logins, #secured-writes.
"""

import pytest

from mxgw_worker.backends.base import E_INVALIDARG, MxError

pytestmark = pytest.mark.asyncio

GUID = "{0F8FAD5B-D9CB-469F-A165-70867728950E}"
USERS = {
    "olga": "pw1",
    "viktor": {"password": "pw2", "guid": GUID, "permissions": ["verify"]},
    "gast": {"password": "", "permissions": []},
}


@pytest.fixture
def secured(still) -> dict[str, object]:
    return {"security": "galaxy", "users": USERS, **still}


async def login(rig, user: str, password: str) -> int:
    return await rig.backend.authenticate_user(rig.server, user, password)


async def test_an_open_galaxy_takes_any_credentials(start, still) -> None:
    rig = await start(**still)

    assert await login(rig, "anyone", "anything") > 0


async def test_a_galaxy_with_users_answers_zero_to_a_failed_login(start, secured) -> None:
    rig = await start(**secured)

    assert await login(rig, "olga", "wrong") == 0
    assert await login(rig, "nobody", "pw1") == 0
    assert await login(rig, "OLGA", "pw1") > 0


async def test_os_users_get_an_hresult_for_a_failed_login(start, secured) -> None:
    rig = await start(**{**secured, "security": "os"})

    with pytest.raises(MxError) as refused:
        await login(rig, "olga", "wrong")

    assert refused.value.hresult == E_INVALIDARG
    assert await login(rig, "olga", "pw1") > 0


async def test_a_user_keeps_the_same_id(start, secured) -> None:
    rig = await start(**secured)

    assert await login(rig, "olga", "pw1") == await login(rig, "olga", "pw1")
    assert await login(rig, "olga", "pw1") != await login(rig, "viktor", "pw2")


async def test_a_guid_gives_its_user(start, secured) -> None:
    rig = await start(**secured)

    by_guid = await rig.backend.archestra_user_to_id(rig.server, GUID.lower().strip("{}"))

    assert by_guid == await login(rig, "viktor", "pw2")
    assert await rig.backend.archestra_user_to_id(rig.server, "{" + "0" * 32 + "}") == 0
    with pytest.raises(MxError) as refused:
        await rig.backend.archestra_user_to_id(rig.server, "viktor")
    assert refused.value.hresult == E_INVALIDARG


@pytest.mark.parametrize("supervisory", [False, True])
@pytest.mark.parametrize("mode", ["open", "galaxy"])
async def test_a_plain_write_is_told_to_be_secured_or_verified(start, secured, mode: str, supervisory: bool) -> None:
    rig = await start(**{**secured, "security": mode})
    one = await rig.advised("Bench_001.SecuredWrite", supervisory=supervisory)
    two = await rig.advised("Bench_001.VerifiedWrite", supervisory=supervisory)

    completion = (await rig.write(one, 1))[0]

    assert (completion.success, completion.category, completion.detail) == (0, 6, 1012)
    assert await rig.detail(two, 1) == 1013
    assert await rig.value("Bench_001.SecuredWrite") == 0


async def test_a_secured_write_needs_an_authenticated_user(start, secured) -> None:
    rig = await start(**secured)
    item = await rig.advised("Bench_001.SecuredWrite")

    assert await rig.write_secured(item, 1, 0) == 1012
    assert await rig.write_secured(item, 1, 99) == 1016
    assert await rig.write_secured(item, 1, await login(rig, "gast", "")) == 1016
    assert await rig.write_secured(item, 1, await login(rig, "olga", "pw1")) == 0
    assert await rig.value("Bench_001.SecuredWrite") == 1


async def test_a_verified_write_needs_two_users(start, secured) -> None:
    rig = await start(**secured)
    item = await rig.advised("Bench_001.VerifiedWrite")
    olga, viktor, gast = (
        await login(rig, "olga", "pw1"),
        await login(rig, "viktor", "pw2"),
        await login(rig, "gast", ""),
    )

    assert await rig.write_secured(item, 1, olga) == 1013
    assert await rig.write_secured(item, 1, 0, viktor) == 1013
    assert await rig.write_secured(item, 1, olga, gast) == 1017
    assert await rig.write_secured(item, 1, viktor, olga) == 1016
    assert await rig.write_secured(item, 1, olga, viktor) == 0
    assert await rig.value("Bench_001.VerifiedWrite") == 1


async def test_the_same_user_twice_is_accepted(start, still) -> None:
    rig = await start(**still)
    item = await rig.advised("Bench_001.VerifiedWrite")
    user = await login(rig, "one", "x")

    assert await rig.write_secured(item, 1, user, user) == 0


async def test_ids_must_come_from_a_login_even_in_an_open_galaxy(start, still) -> None:
    rig = await start(**still)
    item = await rig.advised("Bench_001.SecuredWrite")

    assert await rig.write_secured(item, 1, 1) == 1016


async def test_a_secured_write_of_what_nobody_may_write_is_refused(start, still) -> None:
    rig = await start(**still)
    user = await login(rig, "one", "x")

    assert await rig.write_secured(await rig.advised("Bench_001.Constant"), 1, user, user) == 1007
    assert await rig.write_secured(await rig.advised("Bench_001.ViewOnly"), 1, user, user) == 1008


async def test_write_secured2_sets_the_source_time(start, still) -> None:
    from mxgw.convert import to_value

    rig = await start(**still)
    item = await rig.advised("Bench_001.SecuredWrite")
    user = await login(rig, "one", "x")

    await rig.backend.write_secured2(rig.server, item, user, 0, to_value(4), 1_600_000_000_000_000_000)
    rig.clock.advance(0.1)

    assert [e.time_ns for e in rig.sink.take("data_change")] == [1_600_000_000_000_000_000]


async def test_an_operators_write_needs_a_user_where_security_is_on(start, secured) -> None:
    rig = await start(**secured)
    item = await rig.advised("Bench_001.Operate")

    assert await rig.detail(item, 1) == 1008
    assert await rig.detail(item, 1, user=99) == 1016
    assert await rig.detail(item, 1, user=await login(rig, "gast", "")) == 1016
    assert await rig.detail(item, 1, user=await login(rig, "olga", "pw1")) == 0


async def test_a_supervisory_write_needs_no_user(start, secured) -> None:
    rig = await start(**secured)

    assert await rig.detail(await rig.advised("Bench_001.Operate", supervisory=True), 1) == 0


async def test_a_second_advise_decides_whose_writes_follow(start, secured) -> None:
    rig = await start(**secured)
    item = await rig.advised("Bench_001.Operate")

    await rig.backend.advise_supervisory(rig.server, item)

    assert await rig.detail(item, 1) == 0


async def test_in_an_open_galaxy_user_zero_may_operate(start, still) -> None:
    rig = await start(**still)

    for name in ("FreeAccess", "Operate", "Tune", "Configure"):
        assert await rig.detail(await rig.advised(f"Bench_001.{name}"), 1) == 0


async def test_tune_and_configure_need_their_own_permission(start, still) -> None:
    users = {"o": {"password": "x", "permissions": ["operate"]}, "t": {"password": "x", "permissions": ["tune"]}}
    rig = await start(security="galaxy", users=users, **still)
    item = await rig.advised("Bench_001.Tune")

    assert await rig.detail(item, 1, user=await login(rig, "o", "x")) == 1016
    assert await rig.detail(item, 1, user=await login(rig, "t", "x")) == 0
    assert await rig.detail(await rig.advised("Bench_001.Configure"), 1, user=await login(rig, "t", "x")) == 1016


async def test_free_access_asks_nobody(start, secured) -> None:
    rig = await start(**secured)

    assert await rig.detail(await rig.advised("Bench_001.FreeAccess"), 1) == 0


async def test_passwords_never_show(start, secured) -> None:
    from mxgw_worker.backends.sim.options import parse_options

    assert "pw1" not in repr(parse_options(secured))
    assert "pw1" not in repr(parse_options(secured).users)
