"""Runs: the sqlite file that keeps records. One writer at a time; a kill at any instant leaves it readable."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from normlab.errors import NormlabError
from normlab.store.home import home
from normlab.store.record import Record

VERSION = 1
SCHEMA = """
CREATE TABLE trials (
    id TEXT PRIMARY KEY,
    finished TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')),
    record TEXT NOT NULL
) STRICT
"""
WAIT_SECONDS = 60.0


class Runs:
    """The store of finished runs, at `path` or in NORMLAB_HOME (else the platform's data folder).

    Raises NormlabError where the file is no store, is of a newer version, or cannot be read or written.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path if path is not None else home() / "runs.db"

    def prepare(self) -> None:
        """Make the store if there is none. Raises NormlabError, before the work, where `add` would after it."""
        with self._open(write=True):
            pass

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
        if not self.path.exists():
            return []
        with self._open() as database:
            rows = database.execute("SELECT finished, record FROM trials ORDER BY finished, id").fetchall()
        return [(finished, Record.model_validate_json(record)) for finished, record in rows]

    def get(self, prefix: str) -> Record:
        """The one record whose trial begins with `prefix`; NormlabError if there is none, or several."""
        found = [record for _, record in self.list() if record.trial.startswith(prefix)]
        if len(found) != 1 or not prefix:
            got = "none" if not found else f"{len(found)}: {', '.join(record.trial for record in found[:4])}"
            do = "give more of its digits" if found else f"see `normlab runs list` (store: {self.path})"
            raise NormlabError(f"one run whose id begins with {prefix!r}", got, do)
        return found[0]

    @contextlib.contextmanager
    def _open(self, write: bool = False) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it is kept or nothing is, and two commands at once wait for each other."""
        try:
            if write:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=WAIT_SECONDS, isolation_level=None)
            with contextlib.closing(connection):
                self._prepare(connection)
                connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                try:
                    yield connection
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise NormlabError(
                f"a runs store at {self.path}",
                f"{error}",
                "free the disk or mend its rights, or name another file with --store",
            ) from error

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        if self._version(connection) == 0:
            connection.execute("BEGIN IMMEDIATE")
            if self._version(connection) == 0:  # nobody else made it while this waited
                if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    connection.execute("ROLLBACK")
                    raise NormlabError(
                        f"a runs store at {self.path}",
                        "another program's database",
                        "name another file with --store",
                    )
                connection.execute(SCHEMA)
                connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute("COMMIT")
        if (found := self._version(connection)) > VERSION:
            raise NormlabError(
                f"a runs store of version {VERSION} or older at {self.path}",
                f"version {found}",
                "update normlab, or name another file with --store",
            )

    @staticmethod
    def _version(connection: sqlite3.Connection) -> int:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])
