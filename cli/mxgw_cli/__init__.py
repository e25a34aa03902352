"""The command line `mxgw`. The core knows nothing of it; it uses the core, and the client library as any client does.

Every command `mxgw foo` is the package `foo`: `command.py` declares it to click (options, help, examples), `run.py`
does the work, and further modules show the results. `commands.py` lists all commands for `mxgw --help`.
A command imports nothing from the package of another one; what two of them need is a module here:

    options      options of several commands: gateway, settings
    shell        exit codes, failures, signals, terminal
    render       values, times, qualities, gaps as text and as JSON
    gateway      the connection to a gateway, and a session there
    loading      settings and plugins, loaded as the gateway loads them
    children     processes that a command starts; `tied` runs them
    archive      the file that `backup` writes and `restore` reads
    latency      a histogram of latencies
    main         the program; `reference` writes docs/command-line.md

`main`, `commands`, `options`, `shell` and every `command.py` import nothing heavy (grpc, pydantic, dynaconf, rich,
asyncio), so that help and shell completion answer at once; `command.py` imports `run.py` when the command runs.
"""
