"""One stream's state, without input or output: both clients drive it. Callers hold their own lock."""

from __future__ import annotations

import time
from collections import deque
from datetime import datetime, timezone
from typing import Any

from ._event import Event, Shapes
from ._options import Lost, Options
from .v1 import subscriber_pb2 as pb

_VERDICTS = {"retry": pb.VERDICT_RETRY, "fatal": pb.VERDICT_FATAL, "defer": pb.VERDICT_DEFER}
_ACKED, _NACKED, _REVOKED = 1, 2, 3
_SLOW = 0.5  # seconds between what is said of a batch that is still at work


class Held:
    """What came at once, under one lease."""

    def __init__(self, core: Core, m: pb.Events, events: list[Event], size: int) -> None:
        self.core, self.lease, self.epoch, self.events, self.size = core, m.lease, m.epoch, events, size
        self.count = len(events)
        self.since: float | None = None  # it was handed out, or last got on
        self.states: dict[int, int] = {}
        self.done: list[int] = []
        self.said = 0.0
        self.open = len(events)  # those without a state
        self.ended = False  # no more in the core's list
        self.lost = False  # the server took some of it back
        self.acked = False

    def set(self, offset: int, state: int) -> None:
        if offset not in self.states:
            self.open -= 1
        self.states[offset] = state
        self.lost = self.lost or state == _REVOKED


class Core:
    def __init__(self, options: Options, subscription: str) -> None:
        self._o = options
        self._shapes = Shapes()
        self._held: list[Held] = []
        self._up_to = 0
        self._say = [pb.PullRequest(start=pb.Start(subscription=subscription, consumer=options.consumer))]
        self._events, self._bytes = options.window, options.window_bytes
        self._extend_at, self._pace = 0.0, 5.0
        self._moved = time.monotonic()  # something was taken or completed, or came to an empty queue
        self.queue: deque[Held] = deque()
        self.over = False

    def receive(self, m: pb.PullResponse) -> None:
        kind = m.WhichOneof("message")
        if kind == "events":
            self._receive_events(m.events)
        elif kind == "resolved" and self._o.on_resolved:
            self._o.on_resolved(m.resolved.offset, m.resolved.time.ToDatetime(timezone.utc))
        elif kind == "revoked":
            gone = set(m.revoked.offsets)
            for h in list(self._held):
                for e in h.events:
                    if e.offset in gone and e.offset not in h.states:
                        h.set(e.offset, _REVOKED)
                self._settle(h)
        elif kind == "refused" and not m.refused.offsets:
            for h in [h for h in self._held if h.lease == m.refused.lease]:  # the lease is no more
                self._finish(h, ack=False)

    def _receive_events(self, m: pb.Events) -> None:
        self._shapes.learn(m.tables)
        size, events = 0, []
        for p in m.events:
            n = p.ByteSize()
            size += 1 + _varint(n) + n
            events.append(self._shapes.event(m.source, p))
        h = Held(self, m, events, size)
        if not self._held:
            self._pace = self._third(m.deadline.ToDatetime(timezone.utc))
            self._extend_at = time.monotonic() + self._pace
        if not self.queue:
            self._moved = time.monotonic()
        self._held.append(h)
        self.queue.append(h)

    @staticmethod
    def _third(deadline: datetime) -> float:
        left = (deadline - datetime.now(timezone.utc)).total_seconds()
        return min(max(left / 3, 0.1), 10.0)

    def next(self) -> Held | None:
        """The next batch with anything in it."""
        if self.over:
            self.queue.clear()  # these leases ended with the stream
        while self.queue:
            h = self.queue.popleft()
            h.events = [e for e in h.events if h.states.get(e.offset) != _REVOKED]
            if h.events and not h.ended:
                self._progressed(h)
                return h
        return None

    def _progressed(self, h: Held) -> None:
        h.since = self._moved = time.monotonic()

    def words(self, closing: bool) -> list[pb.PullRequest]:
        """What is to be sent now; wait() tells when to ask again."""
        now = time.monotonic()
        out, self._say = self._say, []
        for h in self._held:
            if h.done and (closing or now - h.said >= _SLOW):
                out.append(self._done(h))
                h.said = now
        if self._up_to:
            out.append(pb.PullRequest(ack=pb.Ack(up_to_lease=self._up_to)))
            self._up_to = 0
        if closing:
            return out
        if self._events or self._bytes:
            out.append(pb.PullRequest(credit=pb.Credit(events=self._events, bytes=self._bytes)))
            self._events = self._bytes = 0
        if self._held and now >= self._extend_at:
            # what is at work, until hold has passed since its last progress, and what waits, while the receiver moves
            ids = [h.lease for h in self._held if now - (self._moved if h.since is None else h.since) < self._o.hold]
            if ids:
                out.append(pb.PullRequest(extend=pb.Extend(leases=ids)))
            self._extend_at = now + self._pace
        return out

    @staticmethod
    def _done(h: Held) -> pb.PullRequest:
        out = pb.PullRequest(ack=pb.Ack(lease=h.lease, offsets=h.done, epoch=h.epoch))
        h.done = []
        return out

    def wait(self) -> float:
        """After how many seconds there is something to say, if nothing happens: 0, at once."""
        if self._say or self._up_to or self._events or self._bytes:
            return 0
        if not self._held:
            return 60
        return min(max(self._extend_at - time.monotonic(), 0.01), _SLOW)

    def patient(self) -> bool:
        """Whether what is to be said may wait a moment for more."""
        return not self._say and self._events < self._o.window // 8 and self._bytes < self._o.window_bytes // 8

    def ack(self, h: Held) -> None:
        if h.acked or self.over or (h.ended and (h.lost or h.open)):
            raise Lost
        h.acked = True
        self._finish(h, ack=True)  # unless each event was completed or failed already

    def _settle(self, h: Held) -> None:
        if not h.open:
            self._finish(h, ack=False)

    def _finish(self, h: Held, ack: bool) -> None:
        if h.ended:
            return
        h.ended = True
        self._moved = time.monotonic()
        if h.done and not ack:
            self._say.append(self._done(h))
        first = self._held[0] is h
        self._held.remove(h)
        if ack and first:
            self._up_to = h.lease
        elif ack:
            self._say.append(pb.PullRequest(ack=pb.Ack(lease=h.lease, epoch=h.epoch)))
        self._events += h.count
        self._bytes += h.size

    def ack_event(self, h: Held, e: Event) -> None:
        if h.ended or self.over or h.states.get(e.offset) == _REVOKED:
            raise Lost
        if e.offset not in h.states:
            self._progressed(h)
            h.done.append(e.offset)
            h.set(e.offset, _ACKED)
            self._settle(h)

    def nack(self, h: Held, e: Event, verdict: str, reason: str, delay: float | None) -> None:
        if verdict not in _VERDICTS:
            raise ValueError(f"verdict {verdict!r} is none of {', '.join(_VERDICTS)}")
        if h.ended or self.over or h.states.get(e.offset) == _REVOKED:
            raise Lost
        n: Any = pb.Nack(lease=h.lease, offset=e.offset, verdict=_VERDICTS[verdict], reason=reason, epoch=h.epoch)
        if delay:
            n.delay.FromMicroseconds(round(delay * 1e6))
        self._say.append(pb.PullRequest(nack=n))
        self._progressed(h)
        h.set(e.offset, _NACKED)
        self._settle(h)

    def revoked(self, h: Held, e: Event) -> bool:
        return self.over or h.states.get(e.offset) == _REVOKED


def _varint(n: int) -> int:
    return max(1, (n.bit_length() + 6) // 7)
