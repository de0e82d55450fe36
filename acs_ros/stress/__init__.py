"""Stress tests of the node over real DDS: load tests (``acs-load``) and endurance tests (``acs-soak``)."""
