"""Sparse-token segmentation of CT and MR scans, with every pruned token in view."""

import os

__version__ = "0.1.0"

# Threads that compute side by side wait for the slowest of them, and by default wait by spinning. Where something else
# wants the cores too (a window that is drawn, another program), they then keep it from finishing, and themselves: with
# three programs on two cores a window took five times as long. Whoever set it otherwise is obeyed. OpenMP reads it when
# torch is loaded, so it is said before anything of ours can load it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
