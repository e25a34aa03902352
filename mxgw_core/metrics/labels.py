"""Labels whose values others choose (names of policies, reasons that plugins bring), kept few."""

from __future__ import annotations

from collections.abc import Mapping

from mxgw_core.api.metrics import MetricSample

# Far beyond what a site has, far below what would hurt whoever stores it.
MOST_SAMPLES = 100
OTHER = "other"


class LabelLimit:
    """The first `MOST_SAMPLES` combinations of a metric keep their names for good, later ones count as "other"."""

    def __init__(self, most: int = MOST_SAMPLES) -> None:
        self._most = most
        self._known: dict[str, set[tuple[str, ...]]] = {}

    def folded(self, metric: str, labels: tuple[str, ...]) -> tuple[str, ...]:
        """Return the labels to use."""
        known = self._known.setdefault(metric, set())
        if labels not in known:
            if len(known) >= self._most:
                return (OTHER,) * len(labels)
            known.add(labels)
        return labels

    def samples(self, metric: str, values: Mapping[tuple[str, ...], float]) -> list[MetricSample]:
        """Return the samples of a metric whose values can be added up, in a stable order."""
        sums: dict[tuple[str, ...], float] = {}
        for labels, value in values.items():
            labels = self.folded(metric, labels)
            sums[labels] = sums.get(labels, 0) + value
        return [MetricSample(sums[labels], labels) for labels in sorted(sums)]
