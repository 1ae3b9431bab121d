"""What a command says while it works, where no terminal is."""

import re

SAID_MEANWHILE = re.compile(r"[\w /]+: \d+/\d+(, |$)|learning .* from \d+ of \d+ shots$|.* is kept in .*$")
"""Lines of progress, what a training learns from, and where the library is that it changes."""
