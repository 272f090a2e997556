"""The repository's own test set-up; nothing that an installed user needs."""

import signal

# A shell starts background jobs with Ctrl-C ignored, and children inherit that: tests that interrupt a process would
# then wait for ever. With a handler set here, children start with the default again.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
