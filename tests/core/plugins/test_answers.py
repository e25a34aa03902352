"""What plugins hand to the gateway, and what they get: plain values that no code of a plugin can change later."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from mxgw_core.api import ANONYMOUS, AccessRequest, Peer
from mxgw_core.plugins.arguments import lent
from mxgw_core.testing import item_record

CALLER = Peer("127.0.0.1:1", is_local=True)


@pytest.mark.parametrize("field", ["item_definition", "serial"])
def test_no_plugin_can_change_the_record_of_an_item_that_others_see(field: str) -> None:
    with pytest.raises(AttributeError):
        object.__setattr__(item_record(), field, "another")


def test_the_items_of_a_decision_cannot_be_changed() -> None:
    items = [item_record(), None]
    request = AccessRequest("/x.Y/Z", ANONYMOUS, CALLER)

    seen: Any = lent(dataclasses.replace(request, items=items)).items

    assert seen == tuple(items)
    assert type(seen) is tuple
