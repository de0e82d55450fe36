"""``acs-replay``: evaluates the answers to a bag's frames, computed offline or published by a running node."""
