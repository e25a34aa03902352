"""The cases: each a module with `TITLE` and `run(context) -> Result`, listed in `registry`."""
