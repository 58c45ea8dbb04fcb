"""Run by Leat's own tests against a real server and database, whose rows cmd/leat/clients_test.go writes."""

import asyncio
import json
import os
import threading
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

import pyarrow as pa
import pytest

import leat
import leat.arrow

URL = os.environ["LEAT_URL"]
CHANGES = 2000 + 2000 + 10  # of files
KINDS = {
    "id": 1, "yes": True, "small": -32768, "money": Decimal("123456789.125"), "real4": 1.5, "real8": 1e300, "words": "naïve",
    "raw": b"\x00\xff", "flags": "10110", "doc": {"a": [1, 2.5]}, "day": date(2026, 11, 21),
    "clock": timedelta(hours=23, minutes=59, seconds=59, microseconds=1), "naive": datetime(2026, 11, 21, 10, 15, 30, 500000),
    "aware": datetime(2026, 11, 21, 8, 15, 30, 500000, timezone.utc), "list": [1, None, 3], "date": [1.5],
    "one": "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "endless": "infinity",
}


class Copy:
    """The table as its events say, and what else came."""

    def __init__(self):
        self.rows, self.kinds, self.last = {}, [], {}

    def take(self, e):
        if e.op == "schema":
            return
        if e.table.name == "public.kinds":
            self.kinds.append(e)
            return
        k = e.key["id"]
        assert e.offset > self.last.get(k, 0), "out of order"
        self.last[k] = e.offset
        if e.op == "delete":
            self.rows.pop(k)
        else:
            self.rows[k] = e.after["n"]

    @property
    def complete(self):
        return len(self.kinds) == 3

    def check(self):
        assert self.rows == {i: 1 for i in range(1, 1991)}
        first, second, third = self.kinds
        got = dict(first.after)
        assert got.pop("free").is_nan()
        assert got == KINDS and first.op == "insert" and first.before is None and first.absent == ()
        assert first.json_text("doc") == '{"a": [1, 2.50]}'
        assert second.after == {**{k: None for k in KINDS}, "id": 2, "free": None}
        assert third.op == "update" and third.before["words"] == "naïve" and third.after["words"] == "other"
        assert third.last and third.time.tzinfo is timezone.utc


def test_pull():
    copy = Copy()
    # a window of a few rows: credit that is not given back exactly would stand still
    with leat.Client(URL, consumer="tests", window=500, window_bytes=20_000) as c:
        for batch in c.pull("sync"):
            for e in batch:
                copy.take(e)
            batch.ack()
            if copy.complete:
                break
    copy.check()


def test_pull_async():
    async def run():
        copy = Copy()
        async with leat.AsyncClient(URL, window=500, window_bytes=20_000) as c:
            async for batch in c.pull("async"):
                for e in batch:
                    copy.take(e)
                batch.ack()
                if copy.complete:
                    break
            pages = 0
            async for page in c.follow("async", page=500):
                pages += 1
                if sum(1 for e in page if e.table.name == "public.kinds" and e.op != "schema"):
                    break
            assert pages >= 8
        return copy

    asyncio.run(run()).check()


def test_one_by_one():
    copy = Copy()
    with leat.Client(URL) as c:
        events = c.events("each")
        for e in events:
            copy.take(e)
            if copy.complete:
                break
        events.close()
    copy.check()


def test_nack_and_a_long_work():
    failed, handled = None, []
    with leat.Client(URL, window=50) as c:
        for batch in c.pull("nack"):
            if failed is None:
                failed = next((e for e in batch if e.op == "insert"), None)
                if failed is None:
                    batch.ack()
                    continue
                batch.nack(failed, "retry", "not now", delay=0.01)
                threading.Event().wait(5)  # longer than the lease of four seconds
                rest = [e for e in batch if e is not failed]
                assert not batch.revoked(rest[-1])
                batch.ack()
                with pytest.raises(leat.Lost):
                    batch.ack()
                continue
            handled += [e.offset for e in batch if e.offset == failed.offset]
            batch.ack()
            if handled:
                break


def test_acks_before_a_break_arrive():
    async def take(n):
        seen = set()
        async with leat.AsyncClient(URL, window=500) as c:
            async for batch in c.pull("left"):
                seen |= {e.offset for e in batch}
                batch.ack()
                if len(seen) >= n:
                    break
        return seen

    first = asyncio.run(take(400))
    assert not first & asyncio.run(take(400)), "what was acked came again"


def test_close_ends_what_other_threads_read():
    c, began, ends = leat.Client(URL, window=500), threading.Event(), []

    def read():
        try:
            for batch in c.pull("closed"):
                batch.ack()
                began.set()
            ends.append("end")
        except Exception as e:
            ends.append(e)

    t = threading.Thread(target=read)
    t.start()
    assert began.wait(60)
    c.close()
    t.join(60)
    assert ends == ["end"]


async def first_page(subscription, cursor):
    async with leat.AsyncClient(URL) as c:
        return await anext(c.follow(subscription, cursor=cursor))


def test_follow_goes_on_from_its_file(tmp_path):
    cursor, seen = tmp_path / "features.cursor", []
    with leat.Client(URL) as c:
        for page in c.follow("sync", cursor=cursor, tables=["*.files"], page=300):
            seen += [e.offset for e in page if e.op != "schema"]
            if len(seen) > 1000:
                break  # before the page counts as taken
        first = len(seen)
        for page in c.follow("sync", cursor=cursor, tables=["*.files"], page=300):
            seen += [e.offset for e in page if e.op != "schema"]
            if len(set(seen)) == CHANGES:
                break
        assert 0 < len(seen) - CHANGES <= 300, "the page that was broken off came again, and nothing else"
        assert first < CHANGES
        kept = json.loads(cursor.read_text())
        assert kept["source"] == "files"
        for place in (1, 9 * 10**18):  # before the log begins, and behind its end
            cursor.write_text(json.dumps({"next": str(place), "subscription": "sync", "source": "orders"}))
            with pytest.raises(leat.ConfigurationError, match="is of the source orders, but the subscription reads files"):
                next(c.follow("sync", cursor=cursor))
            with pytest.raises(leat.ConfigurationError, match="is of the source orders, but the subscription reads files"):
                asyncio.run(first_page("sync", cursor))
            assert json.loads(cursor.read_text())["next"] == str(place), "nothing is written"
        cursor.write_text("{")
        with pytest.raises(leat.ConfigurationError, match="features.cursor"):
            next(c.follow("sync", cursor=cursor))


def test_arrow_and_pandas():
    got = {}
    with leat.Client(URL) as c:
        for batch in c.pull("arrow"):
            try:
                tables = batch.to_arrow()
            except ValueError as e:
                assert "endless" in str(e) and "infinity" in str(e) and "files-" in str(e)
                tables = leat.arrow.tables(e for e in batch if e.table.name != "public.kinds")
                got["kinds"] = True
                rest = [e for e in batch if e.table.name == "public.kinds" and e.key.get("id") == 2]
                kinds = leat.arrow.tables(rest)["public.kinds"]
                assert kinds.schema.field("money").type == pa.decimal128(12, 3)
                assert kinds.schema.field("aware").type == pa.timestamp("us", tz="UTC")
                assert kinds.schema.field("list").type == pa.list_(pa.int64())  # the width of elements is not told
                assert kinds.num_rows == 1 and kinds["words"].null_count == 1
            if "public.files" in tables:
                got.setdefault("files", []).append(tables["public.files"])
                frame = batch.to_pandas()["public.files"] if "kinds" not in got else None
                assert frame is None or str(frame.dtypes["id"]) == "int64[pyarrow]"
            batch.ack()
            if "kinds" in got:
                break
    files = pa.concat_tables(got["files"])
    assert files.num_rows == CHANGES
    assert files.schema.field("id").type == pa.int64() and files.schema.field("n").type == pa.int32()
    ops = files["_op"].value_counts().to_pylist()
    assert {o["values"]: o["counts"] for o in ops} == {"insert": 2000, "update": 2000, "delete": 10}


def test_what_is_useless_ends():
    with leat.Client(URL) as c:
        with pytest.raises(leat.LeatError, match="nobody"):
            next(c.pull("nobody"))
        with pytest.raises(leat.LeatError):
            next(c.follow("nobody"))
        with pytest.raises(leat.TooOld):
            next(c.follow("sync", start=1))
    for url in ("127.0.0.1:7070", "http://me:secret@host", "ftp://host"):
        with pytest.raises(leat.ConfigurationError) as e:
            leat.Client(url)
        assert "secret" not in str(e.value)
    for host in ("leat.internal", "127.0.0.1.example.com", "127.example"):
        with pytest.raises(leat.ConfigurationError, match="https"):
            leat.Client(f"http://{host}:7070", token="t")
