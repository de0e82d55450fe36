"""``acs-replay``: how good the answers about a bag's frames are, asked one by one or published by a running node."""
