"""Runs: the sqlite file that keeps records. One writer at a time; a kill at any instant leaves it readable."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from normlab.errors import NormlabError
from normlab.store.home import home
from normlab.store.record import Record

APPLICATION = int.from_bytes(b"nlab")
"""Tells our file from another program's."""
VERSION = 1
SCHEMA = """
CREATE TABLE trials (
    id TEXT PRIMARY KEY,
    finished TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')),
    record TEXT NOT NULL
)
"""
WAIT_SECONDS = 60.0


class Runs:
    """The store of finished runs, at `path` or in NORMLAB_HOME (else the platform's data folder).

    sqlite's rollback journal, not its write-ahead log: one small write a run, on network folders too, and a
    store that may only be read can be read. Raises NormlabError where the file is no store, is of a newer
    version, or cannot be read or written.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = home() / "runs.db" if path is None else Path(path)

    def prepare(self) -> None:
        """Make the store if there is none. Raises NormlabError, before the work, where `add` would after it."""
        with self._open(write=True) as database:
            # sqlite opens what may not be written without a word: write what is there already.
            database.execute(f"PRAGMA user_version = {VERSION}")

    def add(self, record: Record) -> None:
        """Keep a record; one of the same trial is replaced (its result is the same, its timing newer)."""
        with self._open(write=True) as database:
            database.execute(
                "INSERT INTO trials (id, record) VALUES (?, ?) "
                "ON CONFLICT (id) DO UPDATE SET record = excluded.record, finished = excluded.finished",
                (record.trial, record.model_dump_json()),
            )

    def list(self) -> list[tuple[str, Record]]:
        """Every record with the time it was finished (UTC), oldest first."""
        rows = self._select("SELECT id, finished, record FROM trials ORDER BY finished, id")
        return [(finished, self._record(trial, record)) for trial, finished, record in rows]

    def get(self, prefix: str) -> Record:
        """The one record whose trial begins with `prefix`; NormlabError if there is none, or several."""
        found = self._select("SELECT id, record FROM trials WHERE substr(id, 1, length(?1)) = ?1 ORDER BY id", prefix)
        if len(found) != 1 or not prefix:
            listed = ", ".join(trial for trial, _ in found[:4]) + (", ..." if len(found) > 4 else "")
            got = f"{len(found)}: {listed}" if found else "none"
            do = "give more of its digits" if found else f"see `normlab runs list` (store: {self.path})"
            raise NormlabError(f"one run whose id begins with {prefix!r}", got, do)
        return self._record(*found[0])

    def _select(self, query: str, *values: str) -> Sequence[tuple[str, ...]]:
        with self._open() as database:
            return database.execute(query, values).fetchall()

    def _record(self, trial: str, record: str) -> Record:
        try:
            return Record.model_validate_json(record)
        except ValidationError as error:
            raise NormlabError(
                f"a record of version {VERSION} as trial {trial} in {self.path}",
                f"another ({error.error_count()} of its fields are wrong)",
                "update normlab, or name another file with --store",
            ) from error

    @contextlib.contextmanager
    def _open(self, write: bool = False) -> Iterator[sqlite3.Connection]:
        """Each statement is a transaction: all of it is kept or nothing is, and two at once wait for each other."""
        try:
            if write:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            # What is not there yet reads as an empty store, and stays away.
            path = self.path if write or self.path.exists() else ":memory:"
            connection = sqlite3.connect(path, timeout=WAIT_SECONDS, isolation_level=None)
            with contextlib.closing(connection), connection:
                self._prepare(connection)
                yield connection
        except (sqlite3.Error, OSError) as error:
            raise NormlabError(
                f"a runs store at {self.path}",
                f"{error}",
                "free the disk or mend its rights, or name another file with --store",
            ) from error

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make the table in an empty file."""

        def fact(query: str) -> int:
            return int(connection.execute(query).fetchone()[0])

        if fact("PRAGMA application_id") != APPLICATION:
            connection.execute("BEGIN IMMEDIATE")
            if fact("PRAGMA application_id") != APPLICATION:  # nobody else made it while this waited
                if fact("SELECT count(*) FROM sqlite_master"):
                    raise NormlabError(
                        f"a runs store at {self.path}",
                        "another program's database",
                        "name another file with --store",
                    )
                connection.execute(SCHEMA)
                connection.execute(f"PRAGMA application_id = {APPLICATION}")
                connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.commit()
        if (found := fact("PRAGMA user_version")) > VERSION:
            raise NormlabError(
                f"a runs store of version {VERSION} or older at {self.path}",
                f"version {found}",
                "update normlab, or name another file with --store",
            )
