"""Metrics about plugins, and the metrics that plugins themselves define (hook `mxgw_metrics`)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from mxgw_core.api.errors import GatewayError
from mxgw_core.api.metrics import Metric, MetricKind, MetricSample
from mxgw_core.plugins import PluginHost, PluginState
from mxgw_core.plugins.answers import MOST_SAMPLES, WrongAnswer, check_of
from mxgw_core.plugins.call_times import Tally
from mxgw_core.plugins.calls import CallFailed
from mxgw_core.printable import printable

log = logging.getLogger(__name__)


def plugin_metrics(plugins: PluginHost) -> list[Metric]:
    """Return the metrics about plugins: whether each enabled plugin works, how often it failed, how long it took."""
    enabled = [record for record in plugins.records if record.state is not PluginState.AVAILABLE]
    failures = {(record.name, hook): 0 for record in enabled for hook in plugins.hooks_of(record.name)}
    tallies = dict.fromkeys(failures, Tally()) | dict(plugins.calls.tallies)
    failures.update(plugins.failures)
    costs = sorted(tallies.items())
    return [
        Metric(
            "mxgw_plugin_up",
            MetricKind.GAUGE,
            "1 for each enabled plugin that works, 0 for one that failed.",
            ("plugin", "distribution"),
            [
                MetricSample(int(record.state is PluginState.LOADED), (record.name, record.distribution))
                for record in enabled
            ],
        ),
        Metric(
            "mxgw_access_control_up",
            MetricKind.GAUGE,
            "0 when a plugin that decides about access has failed, so that calls are denied until a restart; else 1.",
            (),
            [MetricSample(int(not any(r.controls_access and r.state is PluginState.FAILED for r in enabled)))],
        ),
        Metric(
            "mxgw_plugin_hook_failures_total",
            MetricKind.COUNTER,
            "Exceptions and wrong answers of plugins, by hook; refusals on purpose do not count.",
            ("plugin", "hook"),
            [MetricSample(count, key) for key, count in sorted(failures.items())],
        ),
        Metric(
            "mxgw_plugin_calls_total",
            MetricKind.COUNTER,
            "Calls of plugins, by the hook that was called or that returned the called object.",
            ("plugin", "hook"),
            [MetricSample(tally.calls, key) for key, tally in costs],
        ),
        Metric(
            "mxgw_plugin_call_seconds_total",
            MetricKind.COUNTER,
            "Time in these calls, during which nothing else ran.",
            ("plugin", "hook"),
            [MetricSample(tally.seconds, key) for key, tally in costs],
        ),
        Metric(
            "mxgw_plugin_slow_calls_total",
            MetricKind.COUNTER,
            "Calls of plugins that took longer than plugins.slow_call_ms by their own fault.",
            ("plugin", "hook"),
            [MetricSample(tally.slow, key) for key, tally in costs],
        ),
    ]


_METRIC: Callable[[Any], Metric] = check_of(Metric, "Metric")
_TEXT: Callable[[Any], str] = check_of(str, "str")


class PluginMetrics:
    """Collects the metrics that plugins define.

    A metric is left out when its name is wrong, or is used by another metric. When a metric has too many samples, some
    of them are left out. Each problem is logged once.
    """

    def __init__(self, plugins: PluginHost) -> None:
        self._plugins = plugins
        self._said: set[tuple[str, str]] = set()

    def collect(self, taken: set[str]) -> Iterator[Metric]:
        """Yield the metrics of all plugins, but no metric whose name is in `taken`."""
        names = set(taken)
        for answer in self._plugins.ask("mxgw_metrics"):
            if answer.error is not None:
                continue
            try:
                # The answer is looked at here, and a sequence of the plugin's own can fail at that.
                with answer.owner.contained("mxgw_metrics"):
                    fitting = list(self._fitting(answer.plugin, answer.value, names))
            except (CallFailed, GatewayError):
                continue
            yield from fitting

    def _fitting(self, plugin: str, metrics: Iterable[Any], names: set[str]) -> Iterator[Metric]:
        own = f"mxgw_{plugin.replace('-', '_')}_"
        for answer in metrics:
            try:
                metric = _METRIC(answer)
            except WrongAnswer as error:
                name = _TEXT(answer.name) if issubclass(type(answer), Metric) else type(answer).__name__
                self._say(plugin, name, f"is wrong: the plugin {error}")
                continue
            if not metric.name.startswith(own):
                self._say(plugin, metric.name, f"does not begin with {own}")
            elif metric.name in names:
                self._say(plugin, metric.name, "is there already")
            elif len(metric.samples) > MOST_SAMPLES:
                self._say(plugin, metric.name, f"has more than {MOST_SAMPLES} samples; the others are left out")
                names.add(metric.name)
                yield replace(metric, samples=metric.samples[:MOST_SAMPLES])
            else:
                names.add(metric.name)
                yield metric

    def _say(self, plugin: str, name: str, what: str) -> None:
        if (plugin, name) not in self._said:
            self._said.add((plugin, name))
            log.warning("metric %s of plugin %s: it %s", printable(name, 100), plugin, what)
