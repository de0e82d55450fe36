"""``make fuzz``, which runs ``python -m fuzz`` with this folder's parent on PYTHONPATH."""

from fuzz.cli import app

app(prog_name="python -m fuzz")
