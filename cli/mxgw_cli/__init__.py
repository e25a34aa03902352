"""The command line `mxgw`. It uses the core and the client library; the core does not import the command line.

Every command `mxgw foo` is the package `foo`: `command.py` declares the command to click (options, help, examples),
`run.py` does the work, and further modules show the results. `commands.py` lists all commands for `mxgw --help`.
The package of a command never imports the package of another command. Modules that several commands need are here:

    options      options of several commands: gateway, settings
    shell        exit codes, failures, signals, terminal
    render       values, times, qualities, gaps as text and as JSON
    gateway      the connection to a gateway, and a session there
    loading      settings and plugins, loaded as the gateway loads them
    children     processes that a command starts; `tied` runs them
    archive      the file that `backup` writes and `restore` reads
    latency      a histogram of latencies
    main         the program; `reference` writes docs/command-line.md

`main`, `commands`, `options`, `shell` and every `command.py` import nothing that is slow to import (grpc, pydantic,
dynaconf, rich, asyncio), so that help and shell completion answer at once. `command.py` imports `run.py` only when the
command runs.
"""
