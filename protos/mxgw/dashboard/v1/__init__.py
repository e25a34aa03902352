"""Generated code; change the .proto files and run `make proto`."""
