"""Files made for one LVLM: registry, model identity, head files, calibrations, JSON and tensor I/O."""
