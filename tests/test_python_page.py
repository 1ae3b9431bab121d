"""docs/python.md is one program that runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
SHORTER = {"Settings(steps=100)": "Settings(steps=10)", "Settings(steps=150)": "Settings(steps=50)"}


def test_program_of_the_page_runs(tmp_path):
    page = PAGE.read_text("utf-8")
    (command,) = re.findall(r"`adiff (surfaces [^`]+)`", page.replace("\n", " "))
    program = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    for long, short in SHORTER.items():
        assert long in program
        program = program.replace(long, short)
    program += "\nassert images.shape == (8, 3, 128, 128) and targets.shape == (8, 1, 128, 128) and targets.any()\n"
    subprocess.run([sys.executable, "-m", "adiff", *command.split()], cwd=tmp_path, check=True, capture_output=True)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "16 pairs, 0 broken" in done.stdout
