"""The gateway: serves gRPC, has the sessions, and passes events from workers to subscribers."""
