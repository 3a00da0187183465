from typing import Any

import pytest

from indexer.config import IndexConfig, IngestConfig


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        (
            IndexConfig,
            {"kind": "HNSW32"},
            "index.kind must be one of auto, exact, codes, graph, lists, got 'HNSW32'",
        ),
        (IndexConfig, {"recall": 1.0}, "index.recall must be 0.5 or more and below 1, got 1.0"),
        (IndexConfig, {"build_threads": 0}, "index.build_threads must be at least 1, got 0"),
        (IndexConfig, {"memory_mb": -1}, "index.memory_mb must not be negative, got -1"),
        (IndexConfig, {"fold_rows": 0}, "index.fold_rows must be at least 1, got 0"),
        (IndexConfig, {"poll_s": 0.0}, "index.poll_s must be above 0 and at most 60 seconds, got 0.0"),
        (IndexConfig, {"poll_s": 61}, "index.poll_s must be above 0 and at most 60 seconds, got 61"),
        (IngestConfig, {"batch_size": 0}, "ingest.batch_size must be at least 1, got 0"),
        (IngestConfig, {"decode_threads": -1}, "ingest.decode_threads must be at least 1, got -1"),
        (IngestConfig, {"thumbnail_side": 0}, "ingest.thumbnail_side must be at least 1, got 0"),
    ],
)
def test_a_setting_out_of_its_range_is_refused_by_name(
    section: type[IndexConfig] | type[IngestConfig], values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        section(**values)
