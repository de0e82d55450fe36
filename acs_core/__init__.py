"""The method: from a picture and a phrase to scored boxes. No ROS here."""

import os

# The threads that share a product wait for one another, and by default they spin while they wait. On a robot other
# programs have the cores, and a thread spins for one that is not running: an answer takes seconds instead of a tenth of
# one (`acs-bench busy`). OpenMP reads this when torch is loaded, which the modules of this package do.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
