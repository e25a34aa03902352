"""GetItemMetadata: what the source says about items. No item is added for it."""

from __future__ import annotations

from collections.abc import Sequence

from mxgw.v1.commands_pb2 import BulkItemResult, BulkResult, GetItemMetadataCommand, ItemReference, MxReply
from mxgw_worker.arguments import check_no_options, check_reference
from mxgw_worker.backends.base import E_NOTIMPL, Describable, MxError
from mxgw_worker.calls import Call, Refused, failed_item
from mxgw_worker.methods import Methods

# How many items the backend describes while it is held. Other commands run between these portions.
_ITEMS_AT_ONCE = 500


class MetadataQueries:
    """Runs GetItemMetadata on backends that are `Describable`."""

    def __init__(self, methods: Methods) -> None:
        self._methods = methods

    async def get(self, call: Call, command: GetItemMetadataCommand) -> MxReply:
        """Return one result per reference, in input order."""
        results: list[BulkItemResult] = []
        for start in range(0, len(command.items), _ITEMS_AT_ONCE):
            portion = command.items[start : start + _ITEMS_AT_ONCE]
            async with self._methods.turn(call):
                results += await self._described(portion)
        return MxReply(bulk=BulkResult(items=results))

    async def _described(self, items: Sequence[ItemReference]) -> list[BulkItemResult]:
        backend = self._methods.backend
        if not isinstance(backend, Describable):
            refusal = Refused(
                "METADATA_NOT_SUPPORTED",
                f"the backend {backend.info().kind} cannot describe items: its source says nothing about them",
                E_NOTIMPL,
            )
            return [failed_item(refusal) for _ in items]
        results = [_check(reference) for reference in items]
        wanted = [place for place, result in enumerate(results) if result is None]
        try:
            described = await backend.describe_items([items[place] for place in wanted]) if wanted else ()
        except Exception as error:
            return [result or failed_item(error) for result in results]
        for place, answer in zip(wanted, described, strict=True):
            results[place] = failed_item(answer) if isinstance(answer, MxError) else BulkItemResult(metadata=answer)
        return [result or BulkItemResult() for result in results]


def _check(reference: ItemReference) -> BulkItemResult | None:
    """Return the failure of a reference that cannot be one; None when it can."""
    try:
        check_reference(reference.item_definition, reference.item_context)
        check_no_options(reference)
    except MxError as error:
        return failed_item(error)
    return None
