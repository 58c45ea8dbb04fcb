"""Events, as Python has them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from json import loads
from typing import Any

from .v1 import event_pb2 as pb

_EPOCH = datetime(1970, 1, 1)
_EPOCH_UTC = datetime(1970, 1, 1, tzinfo=timezone.utc)
_ABSENT = object()

_OPS = {
    pb.OP_INSERT: "insert",
    pb.OP_UPDATE: "update",
    pb.OP_DELETE: "delete",
    pb.OP_SNAPSHOT: "snapshot",
    pb.OP_TRUNCATE: "truncate",
    pb.OP_SCHEMA: "schema",
    pb.OP_MESSAGE: "message",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """A column: ``kind`` is bool, int, uint, decimal, float, text, bytes, bits, json, date, time, datetime, timestamp,
    array, vector, or unspecified (text as the database writes it); ``type`` as the database writes it."""

    name: str
    kind: str
    type: str
    bits: int
    nullable: bool
    elem: str


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """One version of a table's shape, as far as the subscription may see it."""

    name: str
    columns: tuple[Column, ...]
    identity: tuple[str, ...]
    routing: tuple[str, ...]
    version: int
    id: int = 0
    """Of the table in the server's log: another one for a table made anew under the name."""


@dataclasses.dataclass(slots=True)
class Event:
    """One change.

    A column that the database did not send (unchanged large values, partial row images) is not in ``after`` and named
    in ``absent``: keep what you have. Absent is not None.

    Values: bool, int, Decimal, float, str (text, and what only the database's own text can say: intervals, infinite
    dates), bytes, bit strings as str, JSON as Python has it (``json_text`` gives it digit by digit;
    what Python refuses, like a number of 5,000 digits, comes as text), date, timedelta (times
    of day, which in MySQL may be negative or beyond a day), datetime (naive for types without a zone, else in UTC), lists. A
    time beyond the years of Python's datetime is an int of microseconds since 1970 (a date: of days).
    """

    id: str
    """Source, ``-``, offset. The same id is the same content, for ever."""
    offset: int
    """In the server's log: rising; compare only within one source."""
    op: str
    """insert, update, delete, snapshot (apply it as an upsert), truncate, schema, message; new ones may come."""
    table: Table | None
    """None for messages."""
    key: dict[str, Any]
    """The identity columns; empty where the event is about no row."""
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    absent: tuple[str, ...]
    key_change: bool
    """Half of an update that changed the key: it comes as a delete of the old and an insert of the new."""
    tx: str
    last: bool
    """The transaction's last event in the log."""
    time: datetime
    position: str
    """Of the commit in the database: LSN, GTID, or file:offset."""
    prefix: str
    content: bytes
    """Of a logical message."""
    statement: str
    """Of a change of shape, where it is known."""
    proto: pb.Event = dataclasses.field(repr=False)
    """The event as it came."""

    def json_text(self, column: str) -> str | None:
        """A JSON column of ``after`` as the database wrote it, every digit kept."""
        if self.table is not None and self.after is not None:
            for c, v in zip(self.table.columns, self.proto.after.values):
                if c.name == column and v.WhichOneof("kind") == "json":
                    return v.json
        return None


class Shapes:
    """The table versions that a stream has told of."""

    def __init__(self) -> None:
        self._tables: dict[tuple[int, int], Table] = {}

    def learn(self, tables: Iterable[pb.Table]) -> None:
        for t in tables:
            columns = tuple(Column(c.name, _kind(c.kind), c.type, c.bits, c.nullable, _kind(c.elem)) for c in t.columns)
            self._tables[t.id, t.version] = Table(t.subject, columns, tuple(t.identity), tuple(t.routing), t.version, t.id)

    def event(self, source: str, e: pb.Event) -> Event:
        table = self._tables[e.table, e.table_version] if e.table else None
        key: dict[str, Any] = {}
        before = after = None
        absent: list[str] = []
        if table is not None:
            key = {n: value(v) for n, v in zip(table.identity, e.key)}
            if e.HasField("before"):
                before = _row(table, e.before.values, [])
            if e.HasField("after"):
                after = _row(table, e.after.values, absent)
        return Event(f"{source}-{e.offset}", e.offset, _OPS.get(e.op, str(e.op)), table, key, before, after, tuple(absent),
                     e.HasField("key_change"), e.tx.id, e.tx.last, moment(e.time_micros), e.position, e.message.prefix,
                     e.message.content, e.schema_change.statement, e)


def _kind(n: int) -> str:
    return pb.Kind.Name(n).removeprefix("KIND_").lower() if n in pb.Kind.values() else "unspecified"


def _row(table: Table, values: Sequence[pb.Value], absent: list[str]) -> dict[str, Any]:
    out = {}
    for c, v in zip(table.columns, values, strict=True):
        x = value(v)
        if x is _ABSENT:
            absent.append(c.name)
        else:
            out[c.name] = x
    return out


def moment(micros: int) -> Any:
    try:
        return _EPOCH_UTC + timedelta(microseconds=micros)
    except OverflowError:
        return micros


def _naive(micros: int) -> Any:
    try:
        return _EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        return micros


def _day(days: int) -> Any:
    try:
        return date(1970, 1, 1) + timedelta(days=days)
    except OverflowError:
        return days


def _json(text: str) -> Any:
    try:
        return loads(text)
    except (ValueError, RecursionError):  # numbers and depths that databases have and Python refuses
        return text


_PLAIN = {"boolean", "integer", "unsigned", "float64", "float32", "text", "blob", "bits"}


def value(v: pb.Value) -> Any:
    """A value as Python has it."""
    kind = v.WhichOneof("kind")
    if kind in _PLAIN:
        return getattr(v, kind)
    if kind == "null":
        return None
    if kind == "decimal":
        return Decimal(v.decimal)
    if kind == "json":
        return _json(v.json)
    if kind == "date_days":
        return _day(v.date_days)
    if kind == "time_micros":
        return timedelta(microseconds=v.time_micros)
    if kind == "datetime_micros":
        return _naive(v.datetime_micros)
    if kind == "timestamp_micros":
        return moment(v.timestamp_micros)
    if kind == "array":
        return [value(x) for x in v.array.values]
    if kind == "vector":
        return list(v.vector.values)
    return _ABSENT
