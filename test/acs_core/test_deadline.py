import math
import time

import pytest

from acs_core.deadline import Deadline, Pace


def test_no_deadline_never_passes():
    never = Deadline(None, start=0.0)
    assert not never.is_set and never.left_ms() == math.inf and not never.passed()


def test_what_is_left_is_counted_from_the_start_and_less_the_reserve():
    now = time.perf_counter()
    assert Deadline(1e6, now, reserve_ms=4e5).left_ms() == pytest.approx(6e5, abs=1e3)
    assert Deadline(1e6, now - 2000.0).passed()
    assert not Deadline(1e6, now).passed()
    assert Deadline(1e6, now, reserve_ms=1.1e6).passed()


def test_pace_knows_what_it_saw_and_scales_up():
    pace = Pace()
    assert pace.wave_ms(3) is None and pace.after_ms == 0
    pace.note_wave(3, 100.0)
    assert pace.wave_ms(3) == 100.0
    assert pace.wave_ms(6) == 200.0
    assert pace.wave_ms(2) is None
    pace.note_wave(3, 300.0)
    assert pace.wave_ms(3) == 200.0  # an outlier counts half
    pace.note_wave(10, 150.0)
    assert pace.wave_ms(10) == 150.0
    pace.note_after(8.0)
    pace.note_after(4.0)
    assert pace.after_ms == 6.0
