"""Serves events older than the gateway's log from an SQLite file that `mxgw-record-history` fills."""

from mxgw_plugin_sqlite_history.plugin import SqliteHistoryPlugin
from mxgw_plugin_sqlite_history.store import EventStore

__all__ = ["EventStore", "SqliteHistoryPlugin"]
