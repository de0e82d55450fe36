from __future__ import annotations

import os
import signal
import threading

import pytest

from acs_ros.replay.stopping import Stop


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_interrupts(sign, capsys):
    before = signal.getsignal(sign)
    with Stop() as stop:
        assert not stop()
        os.kill(os.getpid(), sign)
        assert stop() and "stopping" in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), sign)
    assert signal.getsignal(sign) is before


def test_on_another_thread_nothing_is_caught():
    before, seen = signal.getsignal(signal.SIGINT), []

    def run():
        with Stop() as stop:
            seen.append((stop(), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
