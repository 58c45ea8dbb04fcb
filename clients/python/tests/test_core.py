"""What a stream says, without a server."""

import time

import pytest

from leat._core import Core
from leat._cursor import Cursor
from leat._event import Shapes, value
from leat._options import ConfigurationError, Lost, Options
from leat.arrow import tables
from leat.v1 import event_pb2, subscriber_pb2 as pb


def core(hold=900.0):
    c = Core(Options(None, "", 10, 1 << 20, hold, None, None), "features")
    c.words(False)
    return c


def arrive(c, lease, *offsets):
    m = pb.Events(lease=lease, events=[event_pb2.Event(offset=o, op=event_pb2.OP_MESSAGE) for o in offsets], source="files")
    m.deadline.FromSeconds(int(time.time()) + 30)
    c.receive(pb.PullResponse(events=m))


def acks(words):
    return [(w.ack.up_to_lease, w.ack.lease, list(w.ack.offsets)) for w in words if w.HasField("ack")]


def test_what_is_taken_back_gives_its_credit_back():
    c = core()
    arrive(c, 1, 5, 6)
    h = c.next()
    c.ack_event(h, h.events[0])
    c.receive(pb.PullResponse(revoked=pb.Revoked(offsets=[6])))
    words = c.words(False)
    assert acks(words) == [(0, 1, [5])]
    assert [w.credit.events for w in words if w.HasField("credit")] == [2]
    with pytest.raises(Lost):
        c.ack(h)
    arrive(c, 2, 7)
    c.receive(pb.PullResponse(refused=pb.Refused(lease=2)))
    assert c.next() is None and [w.credit.events for w in c.words(False)] == [1]


def test_each_answered_for_is_all():
    c = core()
    arrive(c, 1, 5, 6)
    arrive(c, 2, 7)
    h, second = c.next(), c.next()
    c.ack_event(h, h.events[0])
    c.nack(h, h.events[1], "retry", "", None)
    c.ack(h)
    with pytest.raises(Lost):
        c.ack(h)
    c.ack(second)
    words = c.words(False)
    assert acks(words) == [(0, 1, [5]), (2, 0, [])] and words[0].nack.offset == 6


def test_a_stream_that_ended_hands_out_nothing():
    c = core()
    arrive(c, 1, 5)
    c.over = True
    assert c.next() is None


def test_the_end_says_everything():
    c = core()
    arrive(c, 1, 5, 6, 7)
    h = c.next()
    c.ack_event(h, h.events[0])
    assert acks(c.words(False)) == [(0, 1, [5])]
    c.ack_event(h, h.events[1])
    assert acks(c.words(False)) == []
    assert acks(c.words(True)) == [(0, 1, [6])]


def test_hold(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    c = core(hold=20)

    def extended(after):
        now[0] += after
        return [list(w.extend.leases) for w in c.words(False) if w.HasField("extend")]

    arrive(c, 1, 5, 6)
    arrive(c, 2, 7)
    assert c.wait() == 0 or c.wait() <= 0.5, "a batch that came while something was sent"
    h = c.next()
    assert extended(15) == [[1, 2]]
    c.ack_event(h, h.events[0])
    assert extended(15) == [[1, 2]], "from the last progress"
    assert extended(15) == [], "of what hangs, and of what waits behind it"


def test_json_that_python_refuses_is_text():
    for text in ("1" * 5000, "[" * 100_000 + "]" * 100_000):
        assert value(event_pb2.Value(json=text)) == text


def test_arrow_of_shapes_that_do_not_go_together():
    def shape(i, version, kind, n):
        t = event_pb2.Table(id=i, version=version, subject="public.t")
        t.columns.add(name="_offset", kind=kind, bits=64)
        s = Shapes()
        s.learn([t])
        e = event_pb2.Event(offset=n, op=event_pb2.OP_INSERT, table=i, table_version=version)
        e.after.values.append(event_pb2.Value(integer=n) if kind == event_pb2.KIND_INT else event_pb2.Value(text=str(n)))
        return s.event("files", e)

    got = tables([shape(1, 1, event_pb2.KIND_INT, 7), shape(2, 1, event_pb2.KIND_TEXT, 8)])["public.t"]
    assert got["_offset"].to_pylist() == [7, 8] and got["_offset_"].to_pylist() == ["7", "8"]


def test_a_cursor_file_belongs_to_its_subscription_and_source(tmp_path):
    path = tmp_path / "cursor"
    place = Cursor(path, "a")
    assert place.load(3) == 3
    place.check("files")
    place.store(7)
    again = Cursor(path, "a")
    assert again.load(3) == 7
    again.check("files")
    with pytest.raises(ConfigurationError, match="source files, but the subscription reads orders"):
        again.check("orders")
    with pytest.raises(ConfigurationError, match="subscription a, not of b"):
        Cursor(path, "b").load(3)
    path.write_text('{"next": "9", "subscription": "a"}')  # as older versions wrote it
    old = Cursor(path, "a")
    assert old.load(3) == 9
    old.check("orders")
    for text in ("[]", "3", '{"next": {}}', ""):
        path.write_text(text)
        with pytest.raises(ConfigurationError, match="cannot be read"):
            Cursor(path, "a").load(3)
    with pytest.raises(NotADirectoryError):
        Cursor(path / "x", "a").load(3)
