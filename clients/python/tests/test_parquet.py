"""Leat's Parquet files, read by those who were not there when they were written."""

import json
import os
import threading
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow.dataset
import pyarrow.parquet

LAKE = Path(os.environ["LEAT_LAKE"])


def manifests():
    return [json.loads(p.read_text()) for p in sorted((LAKE / "_manifest").glob("*.json"))]


def settled():
    for _ in range(600):
        files = [f for m in manifests() for f in m["files"]]
        rows = dict.fromkeys(("public.files", "public.kinds"), 0)
        for f in files:
            rows[f["table"]] += sum(op != "schema" for op in pyarrow.parquet.read_table(LAKE / f["path"], columns=["_op"])["_op"].to_pylist())
        if rows == {"public.files": 4010, "public.kinds": 3}:
            return files
        threading.Event().wait(0.1)
    raise AssertionError(f"the files do not come: {rows} {manifests()}")


def test_manifests_and_pyarrow():
    files = settled()
    there = {str(p.relative_to(LAKE)) for p in LAKE.glob("table=*/**/*.parquet")}
    assert there == {f["path"] for f in files}, "each file is listed, and each that is listed is there"
    offsets = []
    for f in files:
        t = pyarrow.parquet.read_table(LAKE / f["path"])
        got = t["_offset"].to_pylist()
        assert len(got) == f["rows"] and min(got) == int(f["first"]) and max(got) == int(f["last"])
        offsets += got
    assert len(offsets) == len(set(offsets)), "each event once"
    names = manifests()
    assert len({m["stage"] for m in names if m["files"]}) == sum(bool(m["files"]) for m in names), "each stage once"
    assert all(f["table_id"] > 0 for f in files) and int(names[-1]["high"]) == max(offsets)
    kinds = pyarrow.dataset.dataset([LAKE / f["path"] for f in files if f["table"] == "public.kinds"]).to_table()
    names = kinds.schema.names
    assert names[names.index("id") :][:4] == ["id", "yes", "small", "money"], "the table's order"
    row = next(r for r in kinds.to_pylist() if r["id"] == 1 and r["_op"] == "insert")
    assert row["money"] == Decimal("123456789.125") and row["small"] == -32768 and row["yes"] is True
    assert row["day"] == date(2026, 11, 21) and row["naive"] == datetime(2026, 11, 21, 10, 15, 30, 500000)
    assert row["aware"] == datetime(2026, 11, 21, 8, 15, 30, 500000, timezone.utc)
    assert row["raw"] == b"\x00\xff" and row["list"] == [1, None, 3] and row["date_"] == [1.5] and row["real8"] == 1e300 and row["clock"].microsecond == 1
    assert row["endless"] is None and dict(row["_text"]) == {"endless": "infinity"}
    assert json.loads(row["doc"]) == {"a": [1, 2.5]} and row["free"] == "NaN"


def test_complete_when_nothing_comes():
    settled()
    for _ in range(600):
        last = manifests()[-1]
        if int(last["complete"]) > int(last["high"]):
            assert "T" in last["complete_time"]
            return
        threading.Event().wait(0.1)
    raise AssertionError(f"nobody says that all is there: {last}")


def test_duckdb():
    settled()
    db = duckdb.connect()
    files = f"read_parquet('{LAKE}/table=public.files/*/*.parquet', hive_partitioning = true, union_by_name = true)"
    newest = f"SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY id ORDER BY _offset DESC) AS nth FROM {files} WHERE id IS NOT NULL) WHERE nth = 1 AND _op <> 'delete'"
    assert db.sql(f"SELECT count(*), min(n), max(n), max(id) FROM ({newest})").fetchall()[0] == (1990, 1, 1, 1990)
    kinds = files.replace("public.files", "public.kinds")
    assert db.sql(f"SELECT date_, typeof(date) FROM {kinds} WHERE id = 1 LIMIT 1").fetchall()[0] == ([1.5], "DATE"), "a column called as the folders"
    assert db.sql(f"SELECT count(DISTINCT date) FROM {files}").fetchall()[0][0] >= 1
