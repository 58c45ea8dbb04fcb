"""Changes of a database from a Leat server.

    import leat

    with leat.Client("http://127.0.0.1:7070") as client:
        for batch in client.pull("features"):
            for event in batch:
                print(event.op, event.table, event.key, event.after)
            batch.ack()

Events come at least once and in order per key: write a receiver that may see an event twice, for example by keeping
with each row the ``offset`` that wrote it, and ignoring what is not higher. ``AsyncClient`` is the same for asyncio.
"""

from ._aio import AsyncClient
from ._batch import AsyncBatch, Batch
from ._client import Client
from ._event import Column, Event, Table
from ._options import ConfigurationError, LeatError, Lost, TooOld

__all__ = ["AsyncBatch", "AsyncClient", "Batch", "Client", "Column", "ConfigurationError", "Event", "LeatError", "Lost", "Table", "TooOld"]
