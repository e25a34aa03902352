"""The gateway: serves gRPC, owns sessions, carries events from workers to subscribers."""
