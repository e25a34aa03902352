"""The wire contracts of mxgw; everything below is generated from the .proto files beside it."""
