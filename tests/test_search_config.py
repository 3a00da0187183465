from pathlib import Path
from typing import Any

import pytest

from indexer.config import DatabaseConfig
from search.config import Config, ModelSection, ServerSection


def test_without_a_file_everything_has_its_default() -> None:
    assert Config.load() == Config()
    assert Config().database_url == f"sqlite:///{Path('data/textmm.sqlite').absolute()}"
    assert Config().trunks == Path("data/trunks")


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('data = "/srv/textmm"\n[server]\nport = 9000\n[model]\nname = "tiny"\n')

    config = Config.load(path)

    assert config == Config(
        data=Path("/srv/textmm"), server=ServerSection(port=9000), model=ModelSection(name="tiny")
    )
    assert config.database_url == "sqlite:////srv/textmm/textmm.sqlite"
    assert config.trunks == Path("/srv/textmm/trunks")


def test_a_named_data_folder_wins_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('data = "/srv/textmm"\n')

    assert Config.load(path, data=Path("/elsewhere")).data == Path("/elsewhere")


def test_the_environments_database_wins_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[database]\nurl = "sqlite:///other.sqlite"\nbusy_timeout_s = 3.0\n')
    monkeypatch.setenv("TEXTMM_DATABASE_URL", "postgresql+psycopg://me:secret@host/db")

    assert Config.load(path).database == DatabaseConfig(
        url="postgresql+psycopg://me:secret@host/db", busy_timeout_s=3.0
    )


def test_trunks_may_lie_elsewhere() -> None:
    assert Config.parse({"model": {"trunks": "/weights"}}).trunks == Path("/weights")


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"sever": {}}, "unknown key sever"),
        ({"port": 8000}, "unknown key port"),
        ({"server": {"prot": 1}}, r"server\.prot"),
        ({"server": 3}, "server must be a table, got 3"),
        ({"server": {"port": 65536}}, r"server\.port must be 0\.\.65535, got 65536"),
        ({"server": {"threads": 0}}, r"server\.threads must be at least 1, got 0"),
        ({"server": {"queue": 0}}, r"server\.queue must be at least 1, got 0"),
        ({"server": {"port": "8000"}}, r"server\.port must be of type int, got '8000'"),
        ({"server": {"port": True}}, r"server\.port must be of type int, got True"),
        ({"index": {"poll_s": "1"}}, r"index\.poll_s must be of type float, got '1'"),
        ({"model": {"threads": 0}}, r"model\.threads must be at least 1, got 0"),
        (
            {"index": {"kind": "HNSW32"}},
            r"index\.kind must be one of auto, exact, codes, graph, lists, got 'HNSW32'",
        ),
        ({"index": {"poll_s": 0}}, r"index\.poll_s"),
        ({"ingest": {"batch_size": 0}}, r"ingest\.batch_size must be at least 1, got 0"),
        ({"data": 3}, "data must be a string, got 3"),
    ],
)
def test_an_unknown_key_or_a_bad_value_is_named(tables: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Config.parse(tables)


def test_a_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[server\n")

    with pytest.raises(ValueError, match="line 1"):
        Config.load(path)


def test_a_whole_number_is_a_fine_number_of_seconds() -> None:
    assert Config.parse({"index": {"poll_s": 1}}).index.poll_s == 1
