from pathlib import Path


def gone(pid):
    """Whether the process has ended, waited for or not."""
    try:
        return "zombie" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
