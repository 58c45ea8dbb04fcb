"""Events as Arrow tables, for those who learn from them. Needs pyarrow (``pip install leat-cdc[arrow]``)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from ._event import Column, Event, Table

_META = [
    pa.field("_op", pa.dictionary(pa.int32(), pa.string()), nullable=False),
    pa.field("_offset", pa.uint64(), nullable=False),
    pa.field("_time", pa.timestamp("us", tz="UTC"), nullable=False),
    pa.field("_absent", pa.list_(pa.string()), nullable=False),
]
_NUMERIC = re.compile(r"\b(?:numeric|decimal)\((\d+),\s*(-?\d+)\)")


def schema(table: Table) -> pa.Schema:
    """The Arrow schema of a table: ``_op``, ``_offset``, ``_time``, ``_absent`` (columns that were not sent), then its columns.

    Decimals without a precision, or of more than 76 digits, are text, as are bit strings and JSON. A column that is called
    as one of ours gets a ``_`` behind its name.
    """
    fields = list(_META)
    for c in table.columns:
        fields.append(pa.field(_free(c.name, {f.name for f in fields}), column_type(c)))
    return pa.schema(fields)


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def column_type(c: Column) -> pa.DataType:
    """The Arrow type of a column."""
    if c.kind == "array":
        return pa.list_(_scalar(c.elem, c))
    return _scalar(c.kind, c)


def _scalar(kind: str, c: Column) -> pa.DataType:
    if kind in ("int", "uint"):
        return getattr(pa, f"{kind}{c.bits if c.bits in (8, 16, 32, 64) else 32 if c.bits == 24 else 64}")()
    if kind == "decimal":
        if (m := _NUMERIC.search(c.type)) and 0 < int(m[1]) <= 76:
            return pa.decimal128(int(m[1]), int(m[2])) if int(m[1]) <= 38 else pa.decimal256(int(m[1]), int(m[2]))
        return pa.string()
    if kind == "float":
        return pa.float32() if c.bits == 32 else pa.float64()
    return {"bool": pa.bool_(), "bytes": pa.binary(), "date": pa.date32(), "time": pa.duration("us"), "datetime": pa.timestamp("us"),
            "timestamp": pa.timestamp("us", tz="UTC"), "vector": pa.list_(pa.float32())}.get(kind, pa.string())


def tables(events: Iterable[Event]) -> dict[str, pa.Table]:
    """The rows of events, by table and, where the shape changed in between, concatenated by column name: a column whose
    types do not go together is text.

    A delete has its key (and what of ``before`` was sent); truncates, changes of shape and messages have no row. A value
    that Arrow cannot hold (an infinite date, a decimal NaN) raises ValueError that names event and column.
    """
    parts: dict[str, dict[tuple[int, int], tuple[Table, list[Event]]]] = {}
    for e in events:
        if e.table is not None and e.op in ("insert", "update", "delete", "snapshot"):
            parts.setdefault(e.table.name, {}).setdefault((e.table.id, e.table.version), (e.table, []))[1].append(e)
    return {name: _concat([_table(t, es) for t, es in versions.values()]).sort_by("_offset") for name, versions in parts.items()}


def _concat(parts: list[pa.Table]) -> pa.Table:
    try:
        return pa.concat_tables(parts, promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return pa.concat_tables([_plain(p, parts) for p in parts], promote_options="permissive")


def _plain(part: pa.Table, parts: list[pa.Table]) -> pa.Table:
    """part, with text in the columns that have types in parts which do not go together."""
    for i, f in enumerate(part.schema):
        try:
            pa.unify_schemas([pa.schema([p.schema.field(f.name)]) for p in parts if f.name in p.schema.names], promote_options="permissive")
        except (pa.ArrowTypeError, pa.ArrowInvalid):
            text = pa.array([v if v is None or isinstance(v, str) else str(v) for v in part.column(i).to_pylist()], pa.string())
            part = part.set_column(i, pa.field(f.name, pa.string()), text)
    return part


def _table(t: Table, events: list[Event]) -> pa.Table:
    rows = [e.after if e.after is not None else {**e.key, **(e.before or {})} for e in events]
    s = schema(t)
    arrays: list[Any] = [
        pa.array([e.op for e in events]).dictionary_encode(),
        pa.array([e.offset for e in events], pa.uint64()),
        pa.array([e.time for e in events], s.field("_time").type),
        pa.array([e.absent for e in events], pa.list_(pa.string())),
    ]
    for c, kind in zip(t.columns, s.types[len(_META):]):
        arrays.append(_column(c, kind, [r.get(c.name) for r in rows], events))
    return pa.Table.from_arrays(arrays, schema=s)


def _column(c: Column, kind: pa.DataType, values: list[Any], events: list[Event]) -> pa.Array:
    if kind == pa.string():
        if c.kind == "json":
            values = [None if v is None else e.json_text(c.name) or _dump(v) for v, e in zip(values, events)]
        values = [v if v is None or isinstance(v, str) else str(v) for v in values]
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, OverflowError, TypeError):
        for v, e in zip(values, events):
            try:
                pa.array([v], kind)
            except (pa.ArrowException, OverflowError, TypeError) as err:
                raise ValueError(f"event {e.id}: column {c.name} ({c.type}) has {v!r}, which Arrow's {kind} cannot hold") from err
        raise


def _dump(v: Any) -> str:
    from json import dumps

    return dumps(v)
