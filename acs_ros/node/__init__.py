"""The lifecycle node: parameters, cameras, query manager, inference worker, action and services."""
