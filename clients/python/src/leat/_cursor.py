"""A place in the log that is kept in a file."""

from __future__ import annotations

import json
import os

from ._options import ConfigurationError


def load(path: str | os.PathLike[str] | None, start: int, subscription: str) -> int:
    if path is None:
        return start
    try:
        with open(path, encoding="utf-8") as f:
            kept = json.load(f)
        at, of = int(kept["next"]), kept.get("subscription", subscription)
    except FileNotFoundError:  # and nothing else: what cannot be read is no reason to begin anew
        return start
    except (ValueError, KeyError, TypeError) as e:
        raise ConfigurationError(f"cursor file {os.fspath(path)} cannot be read: {e!r}; remove it to begin anew") from e
    if of != subscription:
        raise ConfigurationError(f"cursor file {os.fspath(path)} is of the subscription {of}, not of {subscription}: give each a file of its own")
    return at


def store(path: str | os.PathLike[str] | None, at: int, subscription: str) -> None:
    """Replaces the file, so that it is there whole whenever the machine stops."""
    if path is None:
        return
    new = f"{os.fspath(path)}.new"
    with open(new, "w", encoding="utf-8") as f:
        json.dump({"next": str(at), "subscription": subscription}, f)
        f.flush()
        os.fsync(f.fileno())
    os.replace(new, path)
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
