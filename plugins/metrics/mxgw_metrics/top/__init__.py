"""`mxgw top`: reads the endpoint twice, and shows the difference."""
