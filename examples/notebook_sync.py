"""The client without `await`, for scripts and notebooks, in cells.

python examples/notebook_sync.py [TARGET]
"""

# %% Connect. In a notebook, close with `gateway.close()` in the last cell.
from __future__ import annotations

import sys

from mxgw_client import DataChange, sync

TARGET = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051"
gateway = sync.connect(TARGET).open()
session = gateway.open_session(client_name="notebook").open()
print(gateway.info())

# %% What is there?
for node in session.browse("Tank_001"):
    print(f"{node.reference:<28} {node.data_type.name if node.data_type else '':<10} {node.description}")

# %% Read a few values at once.
for reading in session.read_bulk(["Tank_001.Level", "Tank_002.Level", "No_Such.Thing"]):
    print(reading.reference, reading.value if reading.ok else f"failed: {reading.statuses or reading.message}")

# %% Write one, and read it back.
session.write_once("Valve_001.PositionSP", 55.0)
print("setpoint", session.read("Valve_001.PositionSP").value)

# %% Follow a tag for five values. You can interrupt this cell at any time; the next cell goes on with the next event.
subscription = session.subscribe("Tank_001.Level")
events = session.events()
levels: list[object] = []
for item in events:
    if isinstance(item, DataChange) and item.reference == "Tank_001.Level" and item.is_good:
        levels.append(item.value)
        if len(levels) == 5:
            break
print("levels", levels)

# %% Done.
gateway.close()
