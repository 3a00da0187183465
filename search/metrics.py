"""What a server tells of itself to Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from indexer.live import View
from indexer.store.builds import TARGETS

LABELS = ["collection", "generation", "target"]


class IndexGauges(Collector):
    """Of views; `names`: collection_id -> name."""

    def __init__(self, views: Sequence[View], names: Mapping[int, str]) -> None:
        self._views, self._names = views, names

    def collect(self) -> Iterable[GaugeMetricFamily]:
        rows = GaugeMetricFamily("textmm_index_rows", "Living vectors.", labels=LABELS)
        tail = GaugeMetricFamily("textmm_index_tail_rows", "Vectors that no segment has yet.", labels=LABELS)
        segments = GaugeMetricFamily("textmm_index_segments", "Segments of an index.", labels=LABELS)
        recall = GaugeMetricFamily(
            "textmm_index_recall", "Recall@10 of the last real queries against exact search.", labels=LABELS
        )
        effort = GaugeMetricFamily(
            "textmm_index_effort", "Times the effort measured at the build; 0: exact search.", labels=LABELS
        )
        for view in self._views:
            for target in TARGETS:
                one = view.target(target)
                labels = [self._names.get(view.collection_id, "gone"), view.generation.model_id, target]
                rows.add_metric(labels, one.vectors.count)
                tail.add_metric(labels, one.vectors.tail_rows)
                segments.add_metric(labels, len(one.vectors.parts))
                effort.add_metric(labels, one.watch.effort)
                if one.watch.recall is not None:
                    recall.add_metric(labels, one.watch.recall)
        return [rows, tail, segments, recall, effort]


def exposition(views: Sequence[View], names: Mapping[int, str]) -> bytes:
    """Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(IndexGauges(views, names))
    return generate_latest(registry)
