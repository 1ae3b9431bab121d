"""What a command says while it works, where no terminal is."""

import re

SAID_MEANWHILE = re.compile(r"[\w /]+: \d+/\d+(, |$)|learning .* from \d+ of \d+ shots$")
"""Lines of progress, and what a training learns from."""
