"""Threads that work on one sample together; they sleep between samples and live as long as the process."""

from collections.abc import Callable
from functools import cache
from queue import SimpleQueue
from threading import Thread

Job = Callable[[], None]


class Team:
    """The caller's thread and `size` - 1 others."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        for _ in range(size - 1):
            Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            job()
            del job  # it keeps the memory alive on which it worked

    def together(self, job: Job) -> None:
        """Let all threads do `job`; return when the caller's own part is done."""
        for _ in range(self.size - 1):
            self._jobs.put(job)
        job()

    @staticmethod
    @cache
    def of(size: int) -> "Team":
        """Return the team of that size."""
        return Team(size)
