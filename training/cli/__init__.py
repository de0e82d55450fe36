"""The commands of ``acs-train``."""
