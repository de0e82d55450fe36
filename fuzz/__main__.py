"""``python -m fuzz``."""

from fuzz.cli import app

app(prog_name="python -m fuzz")
