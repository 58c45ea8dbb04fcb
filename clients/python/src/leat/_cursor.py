"""A place in the log that is kept in a file."""

from __future__ import annotations

import json
import os

import grpc

from ._options import PERMANENT, ConfigurationError
from .v1 import subscriber_pb2 as pb


class Cursor:
    """The file of one follow(); without a path nothing is kept."""

    def __init__(self, path: str | os.PathLike[str] | None, subscription: str) -> None:
        self._path = None if path is None else os.fspath(path)
        self._subscription = subscription
        self.source = ""  # that the place is of; empty: not known

    def load(self, start: int) -> int:
        """Where to begin."""
        if self._path is None:
            return start
        try:
            with open(self._path, encoding="utf-8") as f:
                kept = json.load(f)
            at, of = int(kept["next"]), kept.get("subscription", self._subscription)
            self.source = str(kept.get("source", ""))
        except FileNotFoundError:  # and nothing else: what cannot be read is no reason to begin anew
            return start
        except (ValueError, LookupError, TypeError, AttributeError) as e:
            raise ConfigurationError(f"cursor file {self._path} cannot be read: {e!r}; remove it to begin anew") from e
        if of != self._subscription:
            raise ConfigurationError(f"cursor file {self._path} is of the subscription {of}, not of {self._subscription}: give each a file of its own")
        return at

    def check(self, source: str) -> None:
        """Refuses the answer of another source than the place is of."""
        if self._path is not None and self.source and source and source != self.source:
            raise ConfigurationError(f"cursor file {self._path} is of the source {self.source}, but the subscription reads {source}: an offset of one "
                                     "is no place in the other; give each a file of its own, or remove it to begin anew")
        self.source = source

    def doubts(self, e: grpc.RpcError) -> bool:
        """Whether a place is perhaps refused because it is no place of this log."""
        return self._path is not None and bool(self.source) and e.code() in PERMANENT

    def question(self) -> pb.FetchRequest:
        """Asks whose log the subscription reads."""
        return pb.FetchRequest(subscription=self._subscription, limit=1, max_bytes=1)

    def store(self, at: int) -> None:
        """Replaces the file, so that it is there whole whenever the machine stops."""
        if self._path is None:
            return
        new = f"{self._path}.new"
        with open(new, "w", encoding="utf-8") as f:
            json.dump({"next": str(at), "subscription": self._subscription, "source": self.source}, f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(new, self._path)
        folder = os.open(os.path.dirname(os.path.abspath(self._path)), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
