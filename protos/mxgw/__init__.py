"""The wire contracts of mxgw. The packages in here are generated from .proto files; `convert` and `private_files` are
written by hand.
"""
