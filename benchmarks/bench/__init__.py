"""The harness of the benchmarks: the systems that are measured, the processes that send and read events, and the
ratios.
"""
