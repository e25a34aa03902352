"""The cost of each plugin that is enabled and has nothing to do: a gateway with it, compared with a gateway without it.

The cost is measured in two ways. The first way counts how many functions the thread of the event loop calls for each
message, with single events at a steady rate, so that each event is one block and one message. Every call that a plugin
adds is visible in this number, even on a busy machine. The second way measures processor time at full speed. Two equal
gateways differ by more than two percent there; so the interval of the median says whether a difference is real.
"""

from __future__ import annotations

import asyncio
import threading
import urllib.request
from importlib.metadata import entry_points
from typing import Any

from mxgw_client import EventBatch

from bench.calls import Calls
from bench.context import Context
from bench.gateway import Mxgw, MxgwPremade
from bench.measuring import Result
from bench.processes import free_port
from bench.systems import Load, System, settle
from bench.window import Window

TITLE = "Cost of each plugin, enabled and idle"
SECONDS, WARM_UP_S = 0.3, 0.25
# Four times as many pairs as usual, because a difference of two percent is harder to see than a factor of two.
MORE_PAIRS = 4
# Calls and processor time must not increase by more than this factor.
GOAL = 1.02
RATE, SKIPPED_EVENTS, COUNTED_EVENTS = 1_000, 300, 1_000
# The header that Prometheus 2.42 sends. The scrape interval is the shortest one that makes sense.
SCRAPE = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"}
SCRAPE_EVERY_S = 1.0
# The plugin alarms opens a session, which needs a real worker: the premade worker cannot report alarms.
ALARMS = '[plugins.alarms]\nbackend = "sim"\n'


class Counted(Mxgw):
    """A gateway whose calls are counted."""

    @property
    def launcher(self) -> tuple[str, ...]:
        return ("-m", "bench.calls", str(self.directory / "calls"), self.worker)

    async def _turn(self, load: Load) -> dict[str, Any]:
        await asyncio.to_thread(settle, [self.server_pid])
        window = Window.named()
        window.reset()
        calls = Calls(self.directory / "calls")
        async with self.connect() as gateway, gateway.open_session(backend=f"bench{load.rate:.0f}") as session:
            await self.subscribe(session)
            began = messages = 0
            async with session.events() as events:
                window.open()
                async for frame in events.batches():
                    if not isinstance(frame, EventBatch) or frame.last_sequence < SKIPPED_EVENTS:
                        continue
                    began = began or calls.number
                    if frame.last_sequence >= SKIPPED_EVENTS + COUNTED_EVENTS:
                        break
                    messages += 1
                return {"calls_per_message": (calls.number - began) / messages}


class Scraped(MxgwPremade):
    """A gateway with the plugin metrics that is scraped during every turn."""

    def __init__(self, *, name: str, plugins: tuple[str, ...]) -> None:
        self.port = free_port()
        super().__init__(name=name, plugins=plugins, settings=f'[plugins.metrics]\nlisten = "127.0.0.1:{self.port}"\n')

    def turn(self, load: Load) -> dict[str, Any]:
        over = threading.Event()
        scraper = threading.Thread(target=self._scrape, args=(over,))
        scraper.start()
        try:
            result = super().turn(load)
        finally:
            over.set()
            scraper.join()
        page = self._page()
        duration = "mxgw_metrics_collect_duration_seconds"
        return result | {"collect_ms": value(page, f"{duration}_sum") / value(page, f"{duration}_count") * 1000}

    def _page(self) -> str:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/metrics", headers=SCRAPE)
        with opener.open(request, timeout=5) as answer:
            text: str = answer.read().decode()
            return text

    def _scrape(self, over: threading.Event) -> None:
        while not over.wait(SCRAPE_EVERY_S / 2):
            self._page()
            over.wait(SCRAPE_EVERY_S / 2)


def value(page: str, name: str) -> float:
    """Return the value of a sample without labels."""
    return next(float(line.split()[1]) for line in page.splitlines() if line.startswith(f"{name} "))


def gateway_with(plugin: str) -> Mxgw:
    """Return the gateway with this plugin whose processor time is measured."""
    name = f"with {plugin}"
    match plugin:
        case "alarms":
            return Mxgw(name=name, plugins=(plugin,), settings=ALARMS)
        case "metrics":
            return Scraped(name=name, plugins=(plugin,))
        case _:
            return MxgwPremade(name=name, plugins=(plugin,))


def run(context: Context) -> Result:
    """Compare with one subscriber, which needs no plugin.

    Two gateways without any plugin show how large the noise is.
    """
    seconds, few = context.seconds(SECONDS), context.pairs
    many = context.pairs * MORE_PAIRS
    result = Result("plugins", TITLE, {"seconds": seconds, "counted pairs": few})
    for plugin in ("", *sorted(entry.name for entry in entry_points(group="mxgw.plugins"))):
        where = f"with {plugin}" if plugin else "again without"
        if not context.wants(where):
            continue
        plugins, settings = ((plugin,), ALARMS if plugin == "alarms" else "") if plugin else ((), "")
        counted: list[System] = [
            Counted(name="without plugins", plugins=()),
            Counted(name=where, plugins=plugins, settings=settings),
        ]
        context.pairs = few
        with context.running(counted):
            runs = context.turns(f"{where}, calls", counted, Load(1, seconds, rate=RATE))
        result.add(runs, where, calls_per_message="calls")
        result.compare(
            runs, "calls_per_message", where, "without plugins", where, goal=GOAL if plugin else None, is_limit=True
        )
        other = gateway_with(plugin) if plugin else MxgwPremade(name=where, plugins=())
        without = Mxgw if plugin == "alarms" else MxgwPremade
        timed: list[System] = [without(name="without plugins", plugins=()), other]
        context.pairs = many
        with context.running(timed):
            runs = context.turns(where, timed, Load(1, seconds, warm_up_s=WARM_UP_S))
        result.add(runs, where, events_per_s="events/s", cpu_s_per_million="s", collect_ms="ms")
        result.compare(
            runs, "cpu_s_per_million", where, "without plugins", where, goal=GOAL if plugin else None, is_limit=True
        )
    result.notes += [
        "calls per message: of the event loop's thread, in Python and C, for single events at 1,000 a second",
        "'again without' compares two equal gateways: what it differs from 1 is noise",
        "metrics: scraped once a second; collect ms: what one scrape keeps the event loop from",
        "alarms: both gateways with real workers, whose events are encoded one by one",
    ]
    return context.finish(result)
