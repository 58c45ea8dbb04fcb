"""Batches, as users hold them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from ._core import Held
from ._event import Event

if TYPE_CHECKING:
    import pandas
    import pyarrow


class _Batch:
    def __init__(self, held: Held, lock: AbstractContextManager[Any], wake: Callable[[], None]) -> None:
        self._held, self._lock, self._wake = held, lock, wake

    @property
    def events(self) -> list[Event]:
        """In order per key."""
        return self._held.events

    def __iter__(self) -> Iterator[Event]:
        return iter(self._held.events)

    def __len__(self) -> int:
        return len(self._held.events)

    def ack(self) -> None:
        """Completes what was not completed or failed one by one. Does not wait for the server. Raises ``Lost``."""
        with self._lock:
            self._held.core.ack(self._held)
        self._wake()

    def ack_event(self, event: Event) -> None:
        """Completes one event. Raises ``Lost``."""
        with self._lock:
            self._held.core.ack_event(self._held, event)

    def nack(self, event: Event, verdict: str = "retry", reason: str = "", delay: float | None = None) -> None:
        """Fails one event: ``retry`` (costs an attempt), ``fatal`` (dead letter now), ``defer`` (not now: costs none).

        ``delay``: seconds before the next try; None: as the subscription's retry policy says. The later events of its key
        that were sent are revoked with it: do not act on them. Raises ``Lost``.
        """
        with self._lock:
            self._held.core.nack(self._held, event, verdict, reason, delay)
        self._wake()

    def revoked(self, event: Event) -> bool:
        """Whether the event is no more this client's (its lease ended, or an earlier one of its key failed)."""
        with self._lock:
            return self._held.core.revoked(self._held, event)

    def to_arrow(self) -> dict[str, pyarrow.Table]:
        """The rows, a pyarrow.Table for each table: see :func:`leat.arrow.tables`."""
        from .arrow import tables

        return tables(self._held.events)

    def to_pandas(self) -> dict[str, pandas.DataFrame]:
        """The same with Arrow-backed columns, in which no value changes its type."""
        import pandas

        return {name: t.to_pandas(types_mapper=pandas.ArrowDtype) for name, t in self.to_arrow().items()}


class Batch(_Batch):
    """What came at once, under one lease, which is extended until the batch is completed."""

    def __init__(self, held: Held, changed: threading.Condition) -> None:
        def wake() -> None:
            with changed:
                changed.notify_all()

        super().__init__(held, changed, wake)


class AsyncBatch(_Batch):
    """What came at once, under one lease, which is extended until the batch is completed."""

    def __init__(self, held: Held, wake: Callable[[], None]) -> None:
        super().__init__(held, nullcontext(), wake)
