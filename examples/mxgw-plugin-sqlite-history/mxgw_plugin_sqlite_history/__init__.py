"""Writes the events of all sessions to an SQLite file, and serves from it what is older than the gateway's log."""

from mxgw_plugin_sqlite_history.plugin import SqliteHistoryPlugin
from mxgw_plugin_sqlite_history.store import EventStore

__all__ = ["EventStore", "SqliteHistoryPlugin"]
