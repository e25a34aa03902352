"""The worker: one process per session, which runs the backend and numbers its events."""
