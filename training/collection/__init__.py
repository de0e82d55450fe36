"""Collections of sampled candidates with their attention maps."""
