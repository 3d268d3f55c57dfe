"""Runs: the sqlite file of records and verdicts. One writer at a time; a kill at any instant leaves it readable."""

import contextlib
import json
import os
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from normlab.errors import NormlabError
from normlab.store.home import home
from normlab.store.recipe import Recipe
from normlab.store.record import Record
from normlab.store.verdict import Verdict

Kept = TypeVar("Kept", bound=BaseModel)

APPLICATION = int.from_bytes(b"nlab")
"""Tells our file from another program's."""
VERSION = 2
AMONG = "id IN (SELECT value FROM json_each(?))"
NOW = "strftime('%Y-%m-%dT%H:%M:%SZ', 'now')"
SCHEMA = (
    f"""
CREATE TABLE IF NOT EXISTS trials (
    id TEXT PRIMARY KEY,
    finished TEXT NOT NULL DEFAULT ({NOW}),
    record TEXT NOT NULL
)
""",
    f"""
CREATE TABLE IF NOT EXISTS failures (
    id TEXT PRIMARY KEY,
    finished TEXT NOT NULL DEFAULT ({NOW}),
    recipe TEXT NOT NULL,
    reason TEXT NOT NULL
)
""",
    f"""
CREATE TABLE IF NOT EXISTS studies (
    key TEXT PRIMARY KEY,
    registered TEXT NOT NULL DEFAULT ({NOW}),
    rules TEXT NOT NULL,
    finished TEXT,
    verdict TEXT,
    clock TEXT
)
""",
)
"""Version 1 had the first of these tables alone; opening makes the others."""
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
        with self._open(write=True) as database, database:
            database.execute("BEGIN IMMEDIATE")
            database.execute(
                "INSERT INTO trials (id, record) VALUES (?, ?) "
                f"ON CONFLICT (id) DO UPDATE SET record = excluded.record, finished = {NOW}",
                (record.trial, record.model_dump_json()),
            )
            database.execute("DELETE FROM failures WHERE id = ?", (record.trial,))

    def list(self) -> list[tuple[str, Record]]:
        """Every record with the time it was finished (UTC), oldest first."""
        rows = self._select("SELECT id, finished, record FROM trials ORDER BY finished, id")
        return [(finished, self._record(trial, record)) for trial, finished, record in rows]

    def find(self, trials: Collection[str]) -> dict[str, Record]:
        """Those of the trials that have a record, by id."""
        rows = self._select(
            "SELECT id, record FROM trials WHERE id IN (SELECT value FROM json_each(?))", _json(trials)
        )
        return {trial: self._record(trial, record) for trial, record in rows}

    def get(self, prefix: str) -> Record:
        """The one record whose trial begins with `prefix`; NormlabError if there is none, or several."""
        found = self._select("SELECT id, record FROM trials WHERE substr(id, 1, length(?1)) = ?1 ORDER BY id", prefix)
        if len(found) != 1 or not prefix:
            listed = ", ".join(trial for trial, _ in found[:4]) + (", ..." if len(found) > 4 else "")
            got = f"{len(found)}: {listed}" if found else "none"
            do = "give more of its digits" if found else f"see `normlab runs list` (store: {self.path})"
            raise NormlabError(f"one run whose id begins with {prefix!r}", got, do)
        return self._record(*found[0])

    def remove(self, trials: Collection[str]) -> None:
        """Forget records and failures."""
        with self._open(write=True) as database:
            for table in ("trials", "failures"):
                database.execute(
                    f"DELETE FROM {table} WHERE id IN (SELECT value FROM json_each(?))", (_json(trials),)
                )

    def merge(self, other: "Runs") -> Sequence[Record]:
        """Take over the records that another store has and this one has not, and return them.

        Raises NormlabError where there is no such store, or it is damaged or newer; nothing is taken over then.
        """
        if not other.path.is_file() or not other.path.stat().st_size:  # sqlite would make a store of an empty file
            got = f"no file at {other.path}" if not other.path.exists() else f"no store at {other.path}"
            raise NormlabError("a runs store to import", got, "name the other's runs.db")
        theirs = [record for _, record in other.list()]
        mine = {record.trial for _, record in self.list()}
        new = [record for record in theirs if record.trial not in mine]
        for record in new:
            self.add(record)
        return new

    def fail(self, trial: str, recipe: Recipe, reason: str) -> None:
        """Note that a trial gave no record, and why."""
        with self._open(write=True) as database:
            database.execute(
                "INSERT INTO failures (id, recipe, reason) VALUES (?, ?, ?) "
                f"ON CONFLICT (id) DO UPDATE SET reason = excluded.reason, finished = {NOW}",
                (trial, recipe.model_dump_json(), reason),
            )

    def failures(self) -> dict[str, str]:
        """Trial to why it gave no record."""
        rows = self._select("SELECT id, reason FROM failures ORDER BY id")
        return {row[0]: row[1] for row in rows}

    def register(self, key: str, rules: Sequence[str]) -> Sequence[str]:
        """Fix the rules of a study before its first trial; returns those that were fixed first."""
        with self._open(write=True) as database:
            database.execute(
                "INSERT INTO studies (key, rules) VALUES (?, ?) ON CONFLICT (key) DO NOTHING", (key, _json(rules))
            )
            (fixed,) = database.execute("SELECT rules FROM studies WHERE key = ?", (key,)).fetchone()
        return tuple(json.loads(fixed))

    def conclude(self, verdict: Verdict) -> None:
        """Keep the verdict of a study that is registered; an earlier one of the same key gives way."""
        with self._open(write=True) as database:
            database.execute(
                f"UPDATE studies SET verdict = ?, finished = {NOW} WHERE key = ?",
                (verdict.model_dump_json(), verdict.key),
            )

    def keep_clock(self, key: str, clock: str) -> None:
        """Keep what was timed for a study that is registered, as JSON."""
        with self._open(write=True) as database:
            database.execute("UPDATE studies SET clock = ? WHERE key = ?", (clock, key))

    def clock(self, key: str) -> str | None:
        """What was timed for a study; None if nothing was."""
        rows = self._select("SELECT clock FROM studies WHERE key = ? AND clock IS NOT NULL", key)
        return rows[0][0] if rows else None

    def verdicts(self) -> "dict[str, Verdict]":
        """Key to verdict, in the order in which the studies were registered."""
        rows = self._select("SELECT key, verdict FROM studies WHERE verdict IS NOT NULL ORDER BY registered, rowid")
        return {key: self._plain(Verdict, f"study {key}", verdict) for key, verdict in rows}

    def concluded(self) -> dict[str, str]:
        """Key to when the study's verdict was kept (UTC)."""
        rows = self._select("SELECT key, finished FROM studies WHERE verdict IS NOT NULL")
        return {row[0]: row[1] for row in rows}

    def _select(self, query: str, *values: str) -> Sequence[tuple[str, ...]]:
        with self._open() as database:
            return database.execute(query, values).fetchall()

    def _record(self, trial: str, record: str) -> Record:
        return self._plain(Record, f"trial {trial}", record)

    def _plain(self, kind: type[Kept], what: str, text: str) -> Kept:
        try:
            return kind.model_validate_json(text)
        except ValidationError as error:
            raise NormlabError(
                f"{what} in {self.path} as version {VERSION} keeps it",
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
        """Make the tables where they are missing; whoever else does so at the same time waits."""

        def fact(query: str) -> int:
            return int(connection.execute(query).fetchone()[0])

        application, version = fact("PRAGMA application_id"), fact("PRAGMA user_version")
        if application == APPLICATION and version > VERSION:
            raise NormlabError(
                f"a runs store of version {VERSION} or older at {self.path}",
                f"version {version}",
                "update normlab, or name another file with --store",
            )
        if (application, version) == (APPLICATION, VERSION):
            return
        connection.execute("BEGIN IMMEDIATE")
        if fact("PRAGMA application_id") != APPLICATION and fact("SELECT count(*) FROM sqlite_master"):
            raise NormlabError(
                f"a runs store at {self.path}", "another program's database", "name another file with --store"
            )
        for table in SCHEMA:
            connection.execute(table)
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.commit()


def _json(texts: Collection[str]) -> str:
    return json.dumps([*texts])
