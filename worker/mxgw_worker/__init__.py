"""The worker: one process per session, owning the backend and numbering its events."""
