"""The client for asyncio."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any

import grpc
import grpc.aio

from ._batch import AsyncBatch
from ._core import Core
from ._cursor import Cursor
from ._event import Event, Shapes
from ._options import CHANNEL, FETCH, PULL, Options, backoff, final, target
from .v1 import subscriber_pb2 as pb

_LAZY = 0.005  # seconds for completions to gather


class AsyncClient:
    """``Client`` for asyncio: the same arguments, the same meaning."""

    def __init__(self, url: str, *, token: str | None = None, ca: bytes | None = None, cert: bytes | None = None,
                 key: bytes | None = None, consumer: str = "", window: int = 10_000, window_bytes: int = 16 << 20,
                 hold: float = 900.0, on_resolved: Callable[[int, datetime], None] | None = None,
                 on_retry: Callable[[Exception, float], None] | None = None) -> None:
        self._o = Options(token, consumer, window, window_bytes, hold, on_resolved, on_retry)
        self._closed = False
        self._streams: set[_Stream] = set()  # an async generator that is left by break ends later, if at all
        address, secure = target(url, token)
        if secure:
            self._channel = grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(ca, key, cert), CHANNEL)
        else:
            self._channel = grpc.aio.insecure_channel(address, CHANNEL)
        self._pull = self._channel.stream_stream(PULL, pb.PullRequest.SerializeToString, pb.PullResponse.FromString)
        self._fetch = self._channel.unary_unary(FETCH, pb.FetchRequest.SerializeToString, pb.FetchResponse.FromString)

    async def close(self) -> None:
        """Ends the streams once what is completed has been sent, also of a loop that was left by ``break``."""
        self._closed = True
        await asyncio.gather(*(s.close() for s in list(self._streams)))
        await self._channel.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def pull(self, subscription: str) -> AsyncIterator[AsyncBatch]:
        """As ``Client.pull``."""
        tries = 0
        while True:
            if self._closed:
                return
            stream, began = _Stream(self._o, subscription, self._pull), time.monotonic()
            self._streams.add(stream)
            try:
                async for batch in stream.batches():
                    tries = 0
                    yield batch
            finally:
                await stream.close()
                self._streams.discard(stream)
            if self._closed:
                return
            if time.monotonic() - began > 60:
                tries = 0
            await self._rest(subscription, stream.error, tries)
            tries += 1

    async def follow(self, subscription: str, *, cursor: str | os.PathLike[str] | None = None, start: int = 0, end: int = 0,
                     tables: Iterable[str] = (), ranges: Iterable[int] = (), page: int = 1000,
                     poll: float = 0.5) -> AsyncIterator[list[Event]]:
        """As ``Client.follow``."""
        place, tries = Cursor(cursor, subscription), 0
        at = place.load(start)
        tables, ranges = list(tables), list(ranges)
        while True:
            try:
                request = pb.FetchRequest(subscription=subscription, **{"from": at}, to=end, limit=page, max_bytes=8 << 20, tables=tables, ranges=ranges)
                answer = await self._fetch(request, metadata=self._o.metadata())
            except grpc.RpcError as e:
                if place.doubts(e):
                    with suppress(grpc.RpcError):  # then the first one says why
                        place.check((await self._fetch(place.question(), metadata=self._o.metadata())).events.source)
                await self._rest(subscription, e, tries)
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
                await asyncio.to_thread(place.store, at)
            if answer.end:
                if end and at >= end:
                    return
                await asyncio.sleep(poll)

    async def _rest(self, subscription: str, error: Exception | None, tries: int) -> None:
        if isinstance(error, grpc.RpcError) and (e := final(subscription, error)):
            raise e from None
        if error is not None and not isinstance(error, grpc.RpcError):
            raise error
        seconds = backoff(tries)
        if self._o.on_retry:
            self._o.on_retry(error or ConnectionError("the server ended the stream"), seconds)
        await asyncio.sleep(seconds)


class _Stream:
    """One stream: say() and listen() are tasks, everything happens on one event loop."""

    def __init__(self, options: Options, subscription: str, call: Any) -> None:
        self._core = Core(options, subscription)
        self._said, self._arrived = asyncio.Event(), asyncio.Event()
        self._closing = False
        self.error: Exception | None = None
        self._call = call(metadata=options.metadata())
        self._tasks = [asyncio.create_task(self._say()), asyncio.create_task(self._listen())]

    async def _say(self) -> None:
        try:
            while True:
                closing = self._closing or self._core.over
                out = self._core.words(closing)
                for m in out:
                    await self._call.write(m)
                if closing:
                    await self._call.done_writing()
                    return
                try:
                    if seconds := self._core.wait():
                        await asyncio.wait_for(self._said.wait(), seconds)
                except asyncio.TimeoutError:  # before Python 3.11 it is not TimeoutError
                    pass
                self._said.clear()
                if self._core.patient() and not self._closing:
                    await asyncio.sleep(_LAZY)
        except (grpc.RpcError, asyncio.InvalidStateError):
            pass  # _listen has the reason
        except Exception as e:  # pull raises it; nobody would say anything any more
            self.error = e
            self._call.cancel()

    async def _listen(self) -> None:
        try:
            while (m := await self._call.read()) is not grpc.aio.EOF:
                self._core.receive(m)
                self._said.set()
                self._arrived.set()
            if (code := await self._call.code()) is not grpc.StatusCode.OK:
                raise grpc.aio.AioRpcError(code, await self._call.initial_metadata(), await self._call.trailing_metadata(), await self._call.details())
        except asyncio.CancelledError:
            if not self._call.cancelled():
                raise
        except Exception as e:  # pull raises it
            self.error = self.error or e
        finally:
            self._core.over = True
            self._said.set()
            self._arrived.set()

    async def batches(self) -> AsyncIterator[AsyncBatch]:
        while True:
            self._arrived.clear()
            if self._closing:
                return
            if (held := self._core.next()) is not None:
                yield AsyncBatch(held, self._said.set)
            elif self._core.over:
                return
            else:
                await self._arrived.wait()

    async def close(self) -> None:
        """Sends what is completed, and waits until the server has it."""
        self._closing = True
        self._said.set()
        self._arrived.set()
        _, late = await asyncio.wait(self._tasks, timeout=5)
        self._call.cancel()
        for t in late:
            t.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
