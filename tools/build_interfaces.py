"""Build ROS interface packages with the rosidl wheels of a virtual environment, and install them into it.

The environment is its own ament prefix, so messages installed there import without any environment variable.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from run_logged import Say, run_logged

HOOK = Path(__file__).resolve().parent / "drop_missing_includes.cmake"
FOREIGN = frozenset({"PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "DESTDIR"})
FOREIGN_PREFIXES = ("ROS_", "_ROS_", "AMENT_", "COLCON_", "CMAKE_", "PIP_TARGET", "PIP_PREFIX", "PIP_USER")


def clean_environment(venv: Path, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment variables for every step: those of ``venv``, without any ROS set-up of the caller's
    shell."""
    kept = {k: v for k, v in environ.items() if k not in FOREIGN and not k.startswith(FOREIGN_PREFIXES)}
    path = f"{venv / 'bin'}{os.pathsep}{environ.get('PATH', os.defpath)}"
    return {**kept, "AMENT_PREFIX_PATH": str(venv), "CMAKE_PREFIX_PATH": str(venv), "PATH": path}


class InterfaceBuild:
    """Build of the interface package in ``source``, installed into ``venv``.

    ``work`` holds the log and the list of installed files. It exists from the start of the first build, which
    distinguishes our package from a provided one.
    """

    def __init__(self, source: Path, venv: Path, work: Path) -> None:
        self.name = source.name
        self.source = source
        self.venv = venv
        self.work = work / source.name
        self.log = self.work / "build.log"
        self.manifest = self.work / "install_manifest.txt"

    def is_provided(self) -> bool:
        """Return whether the environment has the package from elsewhere (a wheel), so that ours must not be built."""
        marker = self.venv / "share" / "ament_index" / "resource_index" / "packages" / self.name
        return marker.exists() and not self.work.exists()

    def run(self, jobs: int, say: Say) -> None:
        """Generate, compile and install the package from a fresh build folder, with ``jobs`` compilers in parallel.

        Raises:
            StepFailed: a command failed; the message names the log and holds its last lines.
        """
        self.work.mkdir(parents=True, exist_ok=True)
        self.log.unlink(missing_ok=True)
        self._remove_installed()
        build = self.work / "build"
        shutil.rmtree(build, ignore_errors=True)
        cmake, environment = str(self.venv / "bin" / "cmake"), clean_environment(self.venv)
        configure = [
            *(cmake, "-G", "Unix Makefiles", "-S", str(self.source), "-B", str(build)),
            *("-DBUILD_TESTING=OFF", "-DCMAKE_BUILD_TYPE=Release", f"-DCMAKE_INSTALL_PREFIX={self.venv}"),
            *(f"-DCMAKE_PROJECT_INCLUDE={HOOK}", f"-DPython3_EXECUTABLE={self.venv / 'bin' / 'python'}"),
        ]
        run_logged(configure, self.log, environment, say)
        run_logged([cmake, "--build", str(build), "-j", str(jobs)], self.log, environment, say)
        run_logged([cmake, "--install", str(build)], self.log, environment, say)
        shutil.copyfile(build / "install_manifest.txt", self.manifest)
        shutil.rmtree(build)

    def _remove_installed(self) -> None:
        """Remove the files of the last build, so that no message removed from the package remains."""
        if not self.manifest.exists():
            return
        for line in self.manifest.read_text().splitlines():
            path = Path(line)
            if path.is_relative_to(self.venv):
                path.unlink(missing_ok=True)
        self.manifest.unlink()
