"""The command line `mxgw`: one module per command in `commands`, what they share beside it.

Nothing heavy (grpc, pydantic, dynaconf, rich, asyncio) is imported before a command really runs, so that help and
shell completion answer at once.
"""
