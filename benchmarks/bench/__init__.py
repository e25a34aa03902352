"""The harness of the benchmarks: the measured systems, the processes that send and read events, and the ratios."""
