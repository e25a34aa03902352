"""One module per command; `mxgw_core.cli.main` imports a module only when its command is asked for."""
