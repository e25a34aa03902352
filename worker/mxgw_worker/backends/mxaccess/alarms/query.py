"""What alarms are asked for: the XML of a query, and the expression of a subscription.

Source of both forms: docs/reference/mxaccess.md#alarm-consumer.
"""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from mxgw_worker.backends.mxaccess.alarms.options import AlarmOptions

MOST_SEVERE, LEAST_SEVERE = 1, 999


def query_xml(options: AlarmOptions) -> str:
    """Return the query of every alarm of the areas, of every priority and in every state."""
    queries = "".join(
        f"<QUERY><NODE>{escape(options.node)}</NODE><PROVIDER>{escape(options.provider)}</PROVIDER>"
        f"<GROUP>{escape(area)}</GROUP></QUERY>"
        for area in options.areas
    )
    return (
        f'<QUERIES FROM_PRIORITY="{MOST_SEVERE}" TO_PRIORITY="{LEAST_SEVERE}" ALARM_STATE="ALL"'
        f" DISPLAY_MODE={quoteattr(options.display)}>{queries}</QUERIES>"
    )


def subscription(options: AlarmOptions, machine: str) -> str:
    r"""Return the areas as `\\NODE\Provider!Area`, separated by spaces. `machine` is the name of this machine."""
    node = machine if options.node.casefold() == "localhost" else options.node
    return " ".join(rf"\\{node}\{options.provider}!{area}" for area in options.areas)
