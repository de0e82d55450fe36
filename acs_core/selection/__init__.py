"""Selectors, and the decision on the candidates of one call."""
