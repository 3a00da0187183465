import json

import httpx
import pytest
from flask import Flask

from indexer.database import Database
from search.app import close
from search.openapi import document


def test_a_working_server_is_live_and_ready(http: httpx.Client) -> None:
    live, ready = http.get("/livez"), http.get("/readyz")

    assert [(r.status_code, r.text, r.headers["Content-Type"]) for r in (live, ready)] == [
        (200, "ok", "text/plain; charset=utf-8")
    ] * 2


@pytest.mark.parametrize("table", ["embedding", "collection"])
def test_a_server_whose_database_is_broken_is_live_but_not_ready(
    http: httpx.Client, indexed: Database, table: str
) -> None:
    with indexed.write() as connection:
        connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
        connection.exec_driver_sql(f"ALTER TABLE {table} RENAME TO lost")

    ready = http.get("/readyz")

    assert http.get("/livez").status_code == 200
    assert (ready.status_code, ready.text) == (503, "a small query failed: OperationalError\n")


def test_a_server_that_is_stopping_is_not_ready(app: Flask, http: httpx.Client) -> None:
    close(app)

    assert (http.get("/livez").status_code, http.get("/readyz").status_code) == (200, 503)


def test_a_server_without_any_collection_is_ready(http: httpx.Client) -> None:
    http.delete("/v1/collections/shop")

    assert http.get("/readyz").text == "ok"


def test_openapi_json_is_the_document(http: httpx.Client) -> None:
    answer = http.get("/openapi.json")

    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json() == json.loads(document())
