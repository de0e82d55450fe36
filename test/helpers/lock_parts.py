"""A lock that tells who waits for it: a test needs no pause to give another thread room for the wrong thing."""

import threading
import time


class WatchedLock:
    """Wraps ``lock``; ``waiters`` are the threads that had to wait for it."""

    def __init__(self, lock):
        self._lock = lock
        self.waiters = set()

    def __enter__(self):
        if not self._lock.acquire(blocking=False):
            self.waiters.add(threading.current_thread())
            self._lock.acquire()

    def __exit__(self, *_):
        self._lock.release()

    def waits_or_ended(self, thread):
        """Return once ``thread`` has had to wait for the lock, or has ended."""
        while thread.is_alive() and thread not in self.waiters:
            time.sleep(0.001)
