"""`mxgw top`: reads the endpoint again and again, and shows what happened between the last two readings."""
