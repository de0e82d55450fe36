from dataclasses import fields

import pytest

from training.fitting import reading_speed
from training.fitting.reading_speed import MeasuredParts, SpeedConfig, measure_speed, speed_rows


def test_the_plan_is_computed_from_the_measured_parts():
    parts = MeasuredParts(
        stored=4e5, kept=1.5e6, encode=0.012, write=0.008, unpack=0.002, read=0.001, taken=1e-4, fit=4e-3
    )
    rows = speed_rows(SpeedConfig(pairs=900, epochs=20), parts)
    assert rows["reading from disk against fitting"] == 4.0 and rows["reading from memory against fitting"] == 40.0
    assert rows["candidates read a second, from disk"] == 1000.0
    assert rows["900 pairs: candidates"] == 9000 and rows["900 pairs: GB on disk"] == 3.6
    assert rows["900 pairs: GB to keep all maps in memory"] == 13.5
    assert rows["900 pairs: CPU hours to quantise, compress and write, beside the model's work"] == 0.05
    assert rows["900 pairs: CPU hours to read, 20 epochs from disk"] == 0.1
    assert rows["900 pairs: hours of fitting steps, 20 epochs on this device"] == 0.2


def test_a_candidate_of_the_7b_shape_takes_half_a_megabyte(monkeypatch):
    monkeypatch.setattr(reading_speed, "fit_seconds", lambda *_: 1.0)
    monkeypatch.setattr(reading_speed, "SECONDS", 0.0)
    parts = measure_speed(SpeedConfig(batch=2, workers=1, device="cpu"))
    assert 0.4e6 < parts.stored <= 0.5e6
    assert parts.kept == pytest.approx(0.775 * 4 * (784 * 576 + 4 * 784), rel=1e-6)
    assert all(getattr(parts, field.name) > 0 for field in fields(parts))
