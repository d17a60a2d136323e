"""A multicast forwarder: ``mcrd`` runs it, ``mcrctl`` talks to it."""

import os

# Numerical libraries start a thread per CPU when they are imported, whoever imports them first; a process
# that forks must have one thread only.
for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
