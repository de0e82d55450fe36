from __future__ import annotations

import os
import signal
import threading

import pytest

from acs_ros.stop_signals import StopSignals, interrupt_at_the_second


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_interrupts(sign, capfd):
    before = signal.getsignal(sign)
    with StopSignals(interrupt_at_the_second("acs-replay")) as stop:
        assert not stop()
        os.kill(os.getpid(), sign)
        assert stop() and capfd.readouterr().err.startswith("acs-replay: stopping; ")
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), sign)
    assert signal.getsignal(sign) is before


def test_on_another_thread_nothing_is_caught():
    before, seen = signal.getsignal(signal.SIGINT), []

    def run():
        with StopSignals(interrupt_at_the_second("acs-replay")) as stop:
            seen.append((stop(), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
