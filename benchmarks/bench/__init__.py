"""The harness of the benchmarks: systems under test, the processes that load and read them, and how ratios are made."""
