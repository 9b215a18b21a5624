"""Clears the volumes that wait for it (see deferred.py), beside cinder's own work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from oslo_log import log as logging

from .deferred import Deleted

LOG = logging.getLogger(__name__)

# How long the next attempt waits after one that failed, and how often the group is read.
RETRY_SECONDS = 600
INTERVAL_SECONDS = 60


class Worker:
    """In order, by as many threads as there are slots."""

    def __init__(self, waiting: Callable[[], list[Deleted] | None], clear: Callable[[Deleted], None]) -> None:
        self._waiting = waiting
        self._clear = clear
        self._changed = threading.Condition()
        self._taken: set[str] = set()
        self._retry_at: dict[str, float] = {}

    def start(self, slots: int) -> None:
        for _ in range(slots):
            threading.Thread(target=self._run, daemon=True).start()

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            deleted = self._take()
            try:
                self._clear(deleted)
            except Exception:
                # It stays in the group, and the others go on.
                LOG.exception("%s waits for another attempt in %d s", deleted.name, RETRY_SECONDS)
                self._retry_at[deleted.name] = time.monotonic() + RETRY_SECONDS
            finally:
                self._taken.discard(deleted.name)

    def _take(self) -> Deleted:
        with self._changed:
            while (deleted := self._next()) is None:
                self._changed.wait(INTERVAL_SECONDS)
            self._taken.add(deleted.name)
            return deleted

    def _next(self) -> Deleted | None:
        now = time.monotonic()
        free = (each for each in self._waiting() or () if each.name not in self._taken)
        return next((each for each in free if self._retry_at.get(each.name, 0) <= now), None)
