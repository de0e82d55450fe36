"""Evaluation of predictions against ground truth: records, metrics, tables, comparison and the HTML report."""
