"""`python -m mxgw_cli` is `mxgw`."""

from mxgw_cli.main import main

main()
