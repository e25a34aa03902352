"""`python -m mxgw_cli` does the same as the command `mxgw`."""

from mxgw_cli.main import main

main()
