"""`mxgw top`: reads the endpoint twice, and shows what lies between."""
