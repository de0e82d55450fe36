"""Benchmarks of answers: time, memory and accuracy of the engine (``acs-bench``)."""
