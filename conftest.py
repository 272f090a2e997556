"""The repository's own test set-up; nothing that an installed user needs."""

import os
import signal

# Workers side by side share the cores. Where each of two took all of them for torch, a module took 120 s, not 25.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts background jobs with Ctrl-C ignored, and children inherit that: tests that interrupt a process would
# then wait for ever. With a handler set here, children start with the default again.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
