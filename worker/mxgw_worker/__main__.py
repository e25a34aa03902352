"""Runs a worker: `python -m mxgw_worker`."""

import sys

from mxgw_worker.main import main

sys.exit(main())
