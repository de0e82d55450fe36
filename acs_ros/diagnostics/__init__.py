"""Counters, rates, memory and the /diagnostics status of the node."""
