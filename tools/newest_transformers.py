"""Make an environment with the newest release of transformers beside that of ``make env``.

``newest_transformers.py FOLDER``, run with the Python of the usual environment, whose packages the new one uses too.
Only transformers, and what it needs in other versions, is installed into FOLDER, as wheels from the configured index.
The release may be newer than the range in setup.py: then it is to be tested, and the range extended if all is well.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MARK = "acs-newest"  # file in the folder: it was made here and may be replaced
SHARED = "acs_environment.pth"
# addsitedir also reads the .pth files there, such as that of the editable install.
SHARE = "import site; site.addsitedir({!r})\n"


def make(folder: Path) -> Path:
    """Create the environment anew and return its Python.

    Raises:
        FileExistsError: the folder exists and was not made by this program.
        subprocess.CalledProcessError: a step failed.
    """
    if folder.exists():
        if not (folder / MARK).is_file():
            raise FileExistsError(f"{folder} was not made by this program: move it away")
        shutil.rmtree(folder)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (folder / MARK).touch()
    python = folder / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout.strip()
    (Path(own) / SHARED).write_text(SHARE.format(sysconfig.get_path("purelib")), encoding="utf-8")
    # pip finds what the other environment has, keeps it where it fits, and installs the rest here.
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--only-binary", ":all:", "--upgrade", "transformers"], check=True)
    # The console scripts of acs, with this Python.
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "--force-reinstall", "-e", str(ROOT)], check=True)
    return python


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the environment and print the release; the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    options = parser.parse_args(arguments)
    try:
        python = make(options.folder.absolute())
        subprocess.run(
            [python, "-c", "import transformers; print('transformers', transformers.__version__)"], check=True
        )
    except (FileExistsError, subprocess.CalledProcessError) as error:
        print(f"newest_transformers: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
