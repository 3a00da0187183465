import httpx
from prometheus_client.parser import text_string_to_metric_families

from search.engine import SearchEngine
from textmm.encoder import Encoder


def test_metrics_tell_of_every_index_in_prometheus_text(
    http: httpx.Client, engine: SearchEngine, encoder: Encoder
) -> None:
    (view,) = engine.live.views()
    view.images.watch.recall = 0.97

    answer = http.get("/metrics")

    assert (answer.status_code, answer.headers["Content-Type"]) == (
        200,
        "text/plain; version=0.0.4; charset=utf-8",
    )
    found = {
        (
            sample.name,
            sample.labels["collection"],
            sample.labels["generation"],
            sample.labels["target"],
        ): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    images, texts = (("shop", encoder.model_id, target) for target in ("images", "texts"))
    assert found[("textmm_index_rows", *images)] == found[("textmm_index_rows", *texts)] == 16
    assert found[("textmm_index_tail_rows", *images)] == 16
    assert found[("textmm_index_segments", *images)] == 0
    assert found[("textmm_index_effort", *texts)] == 1
    assert found[("textmm_index_recall", *images)] == 0.97
    assert ("textmm_index_recall", *texts) not in found
