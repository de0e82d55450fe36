"""Whether the stamps of images make sense, in words: stale, ahead, missing, or jumping back."""

from __future__ import annotations


class StampWatch:
    """Looks at the stamps of one camera."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._last: float | None = None

    def judge(self, stamp: float, now: float, stale_after: float, sim_time: bool) -> tuple[str, bool]:
        """What is wrong with the next image's ``stamp``, or an empty string; and whether time went backwards, so that
        what is known of earlier images is void. Seconds; ``now`` is the node's own clock, ``stale_after`` 0 takes any.
        """
        last, self._last = self._last, stamp
        if last is not None and stamp < last:
            return (
                f"the stamps on {self._topic} jumped back by {_span(last - stamp)}: a bag that began again, two "
                "publishers on one topic, or a clock that was set"
            ), True
        if sim_time and now == 0:
            return "use_sim_time is true, but nothing is published on /clock", False
        if stale_after <= 0:
            return "", False
        if stamp == 0:
            return f"the images on {self._topic} carry no stamp (0): fix the camera driver", False
        if now - stamp > stale_after:
            return (
                f"the last image on {self._topic} was stamped {_span(now - stamp)} ago: a bag played without "
                "use_sim_time, clocks of two machines that differ, or a queue on the way"
            ), False
        if stamp - now > stale_after:
            return (
                f"the last image on {self._topic} is stamped {_span(stamp - now)} ahead of this machine's clock: "
                "synchronise the clocks, or set use_sim_time as the publisher has it"
            ), False
        return "", False


def _span(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 86400 else f"{seconds / 86400:.0f} days"
