"""Evaluation of an LVLM with every selector (paper section 5)."""
