"""A place in the log that is kept in a file."""

from __future__ import annotations

import json
import os

from ._options import ConfigurationError


def load(path: str | os.PathLike[str] | None, start: int) -> int:
    if path is None or not os.path.exists(path):
        return start
    try:
        with open(path, encoding="utf-8") as f:
            return int(json.load(f)["next"])
    except (ValueError, KeyError, TypeError) as e:
        raise ConfigurationError(f"cursor file {os.fspath(path)} cannot be read: {e!r}; remove it to begin anew") from e


def store(path: str | os.PathLike[str] | None, at: int) -> None:
    """Replaces the file, so that it is there whole whenever the machine stops."""
    if path is None:
        return
    new = f"{os.fspath(path)}.new"
    with open(new, "w", encoding="utf-8") as f:
        json.dump({"next": str(at)}, f)
        f.flush()
        os.fsync(f.fileno())
    os.replace(new, path)
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
