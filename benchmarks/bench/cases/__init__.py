"""The cases. Each is a module with `TITLE` and `run(context) -> Result`, and is listed in `registry`."""
