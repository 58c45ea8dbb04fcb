"""The client for programs without asyncio."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any

import grpc

from ._batch import Batch
from ._core import Core
from ._cursor import Cursor
from ._event import Event, Shapes
from ._options import CHANNEL, FETCH, PULL, Lost, Options, backoff, final, target
from .v1 import subscriber_pb2 as pb

_LAZY = 0.005  # seconds for completions to gather


class Client:
    """A client of the server at ``url``, like http://127.0.0.1:7070.

    ``token`` of a role ``subscribe:NAME``. ``ca``, ``cert``, ``key``: PEM, for https. ``window``: events that may be under
    way on a stream. ``hold``: seconds for which a batch's lease is extended while nobody completes any of it.
    ``on_resolved`` is told that everything below an offset is done; ``on_retry``, why a stream is opened again; both must not block.
    Threads may share a client.
    """

    def __init__(self, url: str, *, token: str | None = None, ca: bytes | None = None, cert: bytes | None = None,
                 key: bytes | None = None, consumer: str = "", window: int = 10_000, window_bytes: int = 16 << 20,
                 hold: float = 900.0, on_resolved: Callable[[int, datetime], None] | None = None,
                 on_retry: Callable[[Exception, float], None] | None = None) -> None:
        self._o = Options(token, consumer, window, window_bytes, hold, on_resolved, on_retry)
        self._lock, self._closed = threading.Lock(), False
        self._streams: set[_Stream] = set()
        address, secure = target(url, token)
        if secure:
            self._channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(ca, key, cert), CHANNEL)
        else:
            self._channel = grpc.insecure_channel(address, CHANNEL)
        self._pull = self._channel.stream_stream(PULL, pb.PullRequest.SerializeToString, pb.PullResponse.FromString)
        self._fetch = self._channel.unary_unary(FETCH, pb.FetchRequest.SerializeToString, pb.FetchResponse.FromString)

    def close(self) -> None:
        """Ends the streams, also those that other threads read, once what is completed has been sent."""
        with self._lock:
            self._closed = True
        for stream in list(self._streams):
            stream.close()
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def pull(self, subscription: str) -> Iterator[Batch]:
        """The batches of a subscription of the kind pull, for ever: a stream that is lost is opened again, and what was
        not completed comes again. Complete each by ``ack``, in any order. Raises ``LeatError`` when another try is
        useless: no such subscription, no right."""
        tries = 0
        while True:
            with self._lock:
                if self._closed:
                    return
                stream = _Stream(self._o, subscription, self._pull)
                self._streams.add(stream)
            began = time.monotonic()
            try:
                for batch in stream.batches():
                    tries = 0
                    yield batch
            finally:
                stream.close()
                self._streams.discard(stream)
            if self._closed:
                return
            if time.monotonic() - began > 60:
                tries = 0
            self._rest(subscription, stream.error, tries)
            tries += 1

    def events(self, subscription: str) -> Iterator[Event]:
        """The events of a subscription of the kind pull, each completed when the next one is asked for."""
        for batch in self.pull(subscription):
            for event in batch:
                if not batch.revoked(event):
                    yield event
                    with suppress(Lost):  # it comes again
                        batch.ack_event(event)
            with suppress(Lost):
                batch.ack()

    def follow(self, subscription: str, *, cursor: str | os.PathLike[str] | None = None, start: int = 0, end: int = 0,
               tables: Iterable[str] = (), ranges: Iterable[int] = (), page: int = 1000, poll: float = 0.5) -> Iterator[list[Event]]:
        """Page by page, in the order of the log, what a subscription of any kind sees of it, from a place of the
        reader's own.

        It moves no cursor of the server's and holds nothing back there: what is older than the log keeps is gone
        (``TooOld``). ``cursor``: a file that keeps the place, written when the next page is asked for. ``start``: where to
        begin without one (0: the oldest). ``end`` (exclusive; 0: never). ``page``: events at once, at most 10,000. ``poll``:
        seconds between looks at the log's end.
        """
        place, tries = Cursor(cursor, subscription), 0
        at = place.load(start)
        tables, ranges = list(tables), list(ranges)
        while True:
            try:
                request = pb.FetchRequest(subscription=subscription, **{"from": at}, to=end, limit=page, max_bytes=8 << 20, tables=tables, ranges=ranges)
                answer = self._fetch(request, metadata=self._o.metadata())
            except grpc.RpcError as e:
                if place.doubts(e):
                    with suppress(grpc.RpcError):  # then the first one says why
                        place.check(self._fetch(place.question(), metadata=self._o.metadata()).events.source)
                self._rest(subscription, e, tries)
                tries += 1
                continue
            tries = 0
            place.check(answer.events.source)
            shapes = Shapes()
            shapes.learn(answer.events.tables)
            if answer.events.events:
                yield [shapes.event(answer.events.source, e) for e in answer.events.events]
            if answer.next != at:
                at = answer.next
                place.store(at)
            if answer.end:
                if end and at >= end:
                    return
                time.sleep(poll)

    def _rest(self, subscription: str, error: Exception | None, tries: int) -> None:
        if isinstance(error, grpc.RpcError) and (e := final(subscription, error)):
            raise e from None
        if error is not None and not isinstance(error, grpc.RpcError):
            raise error
        seconds = backoff(tries)
        if self._o.on_retry:
            self._o.on_retry(error or ConnectionError("the server ended the stream"), seconds)
        time.sleep(seconds)


class _Stream:
    """One stream: grpc asks say() for messages in a thread of its own, and listen() is another."""

    def __init__(self, options: Options, subscription: str, call: Any) -> None:
        self._core = Core(options, subscription)
        self._changed = threading.Condition()
        self._closing = False
        self.error: Exception | None = None
        self._call = call(self._say(), metadata=options.metadata())
        self._listener = threading.Thread(target=self._listen, name=f"leat {subscription}", daemon=True)
        self._listener.start()

    def _say(self) -> Iterator[pb.PullRequest]:
        while True:
            with self._changed:
                closing = self._closing or self._core.over
                out = self._core.words(closing)
            yield from out
            if closing:
                return
            with self._changed:
                if not (self._closing or self._core.over) and (seconds := self._core.wait()):  # as it is after the sending
                    self._changed.wait(seconds)
                patient = self._core.patient() and not self._closing
            if patient:
                time.sleep(_LAZY)

    def _listen(self) -> None:
        error: Exception | None = None
        try:
            for m in self._call:
                with self._changed:
                    self._core.receive(m)
                    self._changed.notify_all()
        except Exception as e:  # the user's thread raises it
            error = e
        with self._changed:
            self.error, self._core.over = error, True
            self._changed.notify_all()

    def batches(self) -> Iterator[Batch]:
        while True:
            with self._changed:
                while (held := None if self._closing else self._core.next()) is None and not (self._core.over or self._closing):
                    self._changed.wait()
            if held is None:
                return
            yield Batch(held, self._changed)

    def close(self) -> None:
        """Sends what is completed, and waits until the server has it."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._listener.join(5)
        self._call.cancel()
