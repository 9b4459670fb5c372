# SPDX-License-Identifier: GPL-2.0-only
"""For every test: signals as a terminal gives them."""

import signal


def pytest_configure() -> None:
    """Heed the signals that nohup, or a shell's `&`, would have ignored for good.

    What a test starts inherits that, and tests of Ctrl-C would wait for ever.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
