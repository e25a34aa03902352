"""`mxgw doctor`: one module per area; each check really does the thing it speaks of, and names its cure."""
