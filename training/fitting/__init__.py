"""Fitting of head files, regressors, joint models and calibrations."""
