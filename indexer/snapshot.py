"""Snapshots: all rows of one moment and the blobs they name, in one verified file; back into an empty place.

The archive is a tar: `tables/NAME.parquet`, `blobs/SHA256`, and `manifest.json` with the schema's revision, the models
and a sha256 a file, which comes last. Index files are a cache and stay out; so do pictures that were indexed from
folders and shards, whose rows name where they lie.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import re
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from indexer.database import Database
from indexer.errors import IndexerError
from indexer.files import Blobs
from indexer.store.dump import Load, dumped
from indexer.store.images import Images

FORMAT = 1
MANIFEST = "manifest.json"
STALE_S = 86_400.0
TRIES = 5
TABLES = ("collection", "generation", "image", "text", "embedding", "caption", "perceptual_hash")
"""That every schema has."""


class SnapshotBroken(IndexerError):
    """An archive that is not whole, not ours, or of a newer version; the message says which."""


class NotEmpty(IndexerError):
    """There are rows already where a snapshot should go."""


@dataclass(frozen=True)
class Snapshot:
    """What an archive says of itself."""

    revision: str
    created_at: str
    collections: list[dict[str, Any]]
    """name, model_id, images"""
    files: dict[str, str]
    """path in the archive -> sha256"""


def write_snapshot(database: Database, data: Path, target: Path) -> Snapshot:
    """Write an archive of this moment; writers go on meanwhile. It is whole at `target`, or nothing is there.

    Raises FileExistsError, FileNotFoundError (a blob is gone: fsck says whose), OSError (a full disk).
    """
    if target.exists():
        raise FileExistsError(f"{target} is there already: name another file")
    for _ in range(TRIES):
        try:
            return _written(database, data, target)
        except _BlobGone as gone:  # its image was deleted, and swept, before the blob could be linked
            digest = str(gone)
            if digest in Images(database).blobs_in_use():
                raise FileNotFoundError(
                    f"blob {digest[:12]}… is not there: `textmm fsck` says what is wrong"
                ) from gone
    raise FileNotFoundError("images were deleted faster than their blobs could be kept: try again")


class _BlobGone(Exception):
    pass


def _written(database: Database, data: Path, target: Path) -> Snapshot:
    blobs = Blobs(data / "blobs")
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=_staging(data)) as temporary:
            staged = Path(temporary)
            with dumped(database) as dump:
                for digest in sorted(dump.blobs()):
                    try:
                        blobs.link(digest, staged)  # before the rows: a blob that dies now is kept
                    except FileNotFoundError as error:
                        raise _BlobGone(digest) from error
                paths = {f"blobs/{path.name}": path for path in sorted(staged.iterdir())}
                for name in dump.tables:
                    path = staged / f"{name}.parquet"
                    _write_table(path, dump.columns(name), dump.rows(name))
                    paths[f"tables/{name}.parquet"] = path
                snapshot = Snapshot(
                    dump.revision,
                    dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
                    dump.summary(),
                    {name: _sha256(path) for name, path in paths.items()},
                )
            _pack(partial, paths, snapshot, staged)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return snapshot


def read_snapshot(source: Path) -> Snapshot:
    """What an archive holds, once every file in it is proved whole. Raises SnapshotBroken, OSError."""
    try:
        with tarfile.open(source, "r:") as archive:
            snapshot = _manifest(archive, source)
            found = {m.name: m for m in archive if m.isfile() and m.name != MANIFEST}
            if set(found) != set(snapshot.files):
                odd = sorted(set(found) ^ set(snapshot.files))[0]
                raise SnapshotBroken(f"{source}: {odd} is in the archive or in its manifest, but not in both")
            for name, digest in snapshot.files.items():
                if _member_sha256(archive, name) != digest:
                    raise SnapshotBroken(f"{source}: {name} is not what was written: the archive is damaged")
    except tarfile.TarError as error:
        raise SnapshotBroken(f"{source}: not an archive that can be read to its end: {error}") from error
    return snapshot


def restore_snapshot(database: Database, data: Path, source: Path) -> Snapshot:
    """Put a verified archive into an empty database and data folder; all of its rows or none.

    An archive of an older schema is brought to this one. Raises SnapshotBroken, NotEmpty, OSError.
    """
    snapshot = read_snapshot(source)
    if snapshot.revision > database.head:
        raise SnapshotBroken(
            f"{source} was made by schema {snapshot.revision}, this version has {database.head}: use a newer one"
        )
    there = database.revision()
    if there not in (None, snapshot.revision):
        raise NotEmpty(
            f"the database has schema {there}, the snapshot {snapshot.revision}: use a new database"
        )
    if snapshot.revision not in database.revisions():
        raise SnapshotBroken(
            f"{source} was made by schema {snapshot.revision}, which nobody knows: it is damaged"
        )
    database.upgrade_to(snapshot.revision)
    blobs = Blobs(data / "blobs")
    with tarfile.open(source, "r:") as archive, database.write() as connection:
        load = Load(connection)
        if not load.is_empty():
            raise NotEmpty("there are rows already in this database: restore into an empty place")
        for name in snapshot.files:
            if name.startswith("blobs/"):
                blobs.put(_member(archive, name).read(), anew=True)
        for table in load.tables:
            for rows in _read_table(_member(archive, f"tables/{table}.parquet"), load.columns(table)):
                load.insert(table, rows)
        load.end()
    database.upgrade()
    return snapshot


def _staging(data: Path) -> Path:
    """Where snapshots are put together: beside the blobs, so that these are linked and not copied. What killed
    processes left there goes after a day."""
    folder = data / "staging"
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.iterdir():
        with suppress(FileNotFoundError):  # its own process has just ended
            if left.stat().st_mtime < time.time() - STALE_S:
                shutil.rmtree(left, ignore_errors=True)
    return folder


def _pack(partial: Path, paths: dict[str, Path], snapshot: Snapshot, staged: Path) -> None:
    manifest = staged / MANIFEST
    manifest.write_text(json.dumps({"format": FORMAT, **vars(snapshot)}, ensure_ascii=False))
    with partial.open("wb") as file:
        with tarfile.open(fileobj=file, mode="w:", format=tarfile.PAX_FORMAT) as archive:
            for name, path in [*paths.items(), (MANIFEST, manifest)]:
                archive.add(path, name, filter=_anonymous)
        file.flush()
        os.fsync(file.fileno())


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Nothing of the machine it was made on."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    return member


def _manifest(archive: tarfile.TarFile, source: Path) -> Snapshot:
    try:
        data = json.loads(_member(archive, MANIFEST).read())
        version = data.pop("format")
        snapshot = Snapshot(**data)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise SnapshotBroken(f"{source}: no snapshot of ours, or one that broke off: no manifest") from error
    if version != FORMAT:
        raise SnapshotBroken(f"{source}: made by a newer version of the snapshot format")
    whole = isinstance(snapshot.files, dict) and {f"tables/{name}.parquet" for name in TABLES} <= set(
        snapshot.files
    )
    if not whole or not re.fullmatch(r"\d{4}", str(snapshot.revision)):
        raise SnapshotBroken(f"{source}: its manifest names no tables or no schema: it is damaged")
    return snapshot


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    """KeyError when it is not there."""
    file = archive.extractfile(name)
    assert file is not None
    return file


def _member_sha256(archive: tarfile.TarFile, name: str) -> str:
    digest, file = hashlib.sha256(), _member(archive, name)
    while part := file.read(1 << 20):
        digest.update(part)
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_table(path: Path, columns: dict[str, str], parts: Iterable[list[dict[str, Any]]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "bytes": pa.binary()}
    schema = pa.schema([(name, kinds.get(kind, pa.string())) for name, kind in columns.items()])
    with parquet.ParquetWriter(path, schema) as writer:
        for rows in parts:
            encoded = [{name: _out(row[name], kind) for name, kind in columns.items()} for row in rows]
            writer.write_table(pa.Table.from_pylist(encoded, schema))


def _read_table(file: IO[bytes], columns: dict[str, str]) -> Iterator[list[dict[str, Any]]]:
    from pyarrow import parquet

    for batch in parquet.ParquetFile(file).iter_batches(2000):
        yield [{name: _in(row[name], kind) for name, kind in columns.items()} for row in batch.to_pylist()]


def _out(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == "json":
        return json.dumps(value, ensure_ascii=False)
    if kind == "time":
        utc = value.astimezone(dt.UTC) if value.tzinfo else value.replace(tzinfo=dt.UTC)
        return utc.isoformat()
    return value


def _in(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == "json":
        return json.loads(value)
    return dt.datetime.fromisoformat(value) if kind == "time" else value
