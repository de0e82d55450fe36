"""Write requirements/locked: versions and SHA-256 hashes of all packages that the set-up installs, resolved by uv.

``lock.py [UV]``, run by ``make lock`` after a change of the files in requirements/; UV is the path of a uv. Locked
versions are kept unless a requirement excludes them. The index is that of UV_DEFAULT_INDEX, else of PIP_INDEX_URL.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from locked import DISTRIBUTIONS, ENVIRONMENT, FOLDER, SOURCES, TORCH_CPU, TORCH_GPU, Locked, normal, parse
from machine_check import PYTHONS

REQUIREMENTS = FOLDER.parent
CPU_SUMS = REQUIREMENTS / "torch_cpu.sha256"
INPUTS = ("runtime.txt", "training.txt", "dev.txt")
ROS_INPUTS = {name: f"ros_{name}.txt" for name in DISTRIBUTIONS}
SINGLE = ("audit.txt", "docs.txt", "fuzz.txt", "uv.txt")  # one lock file each, since they are optional
NOT_AS_WHEELS = ("empy",)
# PyPI's torch, and its dependencies that the CPU build does not have; without triton, which the tests need, too.
GPU_BUILD = ("torch",)
GPU_BUILD_PREFIXES = ("nvidia-", "cuda-")
HEADER = "# Written by tools/lock.py (make lock) from {}. Do not edit.\n"


class LockFailed(Exception):
    """Raised if the lock files cannot be written; the message says why."""


def compiled(uv: str, python: str, inputs: Sequence[Path], locked: str) -> str:
    """Return uv's lock file for ``inputs`` on Linux, x86-64; the versions in the lock file ``locked`` are kept."""
    environ = dict(os.environ)
    if "PIP_INDEX_URL" in environ:
        environ.setdefault("UV_DEFAULT_INDEX", environ["PIP_INDEX_URL"])
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "locked.txt"
        output.write_text(locked)
        command = [uv, "pip", "compile", "--no-config", "--quiet", "--generate-hashes", "--no-header", "--no-annotate"]
        platform = ["--python-version", python, "--python-platform", "x86_64-manylinux_2_28"]
        done = subprocess.run(
            [*command, *platform, "-o", str(output), *map(str, inputs)], env=environ, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise LockFailed(done.stderr.strip())
        return output.read_text()


def versions_in(*files: Path) -> str:
    """Return the pins of the existing lock files without hashes, so that uv fetches the hashes again."""
    return "".join(f"{p.name}=={p.version}\n" for file in files if file.exists() for p in parse(file.read_text()))


def for_all_pythons(uv: str, inputs: Sequence[Path], locked: str) -> list[Locked]:
    """Return the packages for ``inputs``, which must be the same for every Python that acs supports.

    Raises:
        LockFailed: they differ, or uv failed.
    """
    first, *others = ("{}.{}".format(*version) for version in PYTHONS)
    text = compiled(uv, first, inputs, locked)
    packages = parse(text)
    for python in others:
        pins = {(package.name, package.version) for package in parse(compiled(uv, python, inputs, text))}
        if differing := pins ^ {(package.name, package.version) for package in packages}:
            names = ", ".join(sorted({name for name, _ in differing}))
            raise LockFailed(
                f"Python {first} and {python} need different versions of {names}; one file must serve both"
            )
    return packages


def by_distribution(packages: Mapping[str, Sequence[Locked]]) -> tuple[list[Locked], dict[str, list[Locked]]]:
    """Return the packages that are the same with every ROS distribution, and the others by distribution.

    Those named ``ros-`` always belong to the distribution.

    Raises:
        LockFailed: a package that is not of ROS differs between distributions.
    """
    pins = {name: {(p.name, p.version) for p in its if not p.name.startswith("ros-")} for name, its in packages.items()}
    same = set.intersection(*pins.values())
    for name, its in pins.items():
        others = {package for other in pins if other != name for package, _ in pins[other]}
        if differing := sorted(package for package, version in its - same if package in others):
            raise LockFailed(f"{' and '.join(packages)} need different versions of {', '.join(differing)}")
    common = [p for p in next(iter(packages.values())) if (p.name, p.version) in same]
    return common, {name: [p for p in its if (p.name, p.version) not in same] for name, its in packages.items()}


def cpu_build(packages: Iterable[Locked], sums: str) -> Locked:
    """Return PyTorch's CPU build of the torch in ``packages``; ``sums`` are its hashes in sha256sum's format.

    Raises:
        LockFailed: a hash is missing, or belongs to another version.
    """
    [torch] = [package for package in packages if package.name == "torch"]
    version = f"{torch.version}+cpu"
    lines = [line.split() for line in sums.splitlines() if line and not line.startswith("#")]
    for python in PYTHONS:
        if not any(file.startswith("torch-{}-cp{}{}-".format(version, *python)) for _, file in lines):
            raise LockFailed(f"{CPU_SUMS.name} has no hash of torch {version} for Python {{}}.{{}}".format(*python))
    if others := [file for _, file in lines if not file.startswith(f"torch-{version}-")]:
        raise LockFailed(f"{CPU_SUMS.name} names {', '.join(others)}, but the locked version is {version}")
    hashes = sorted(sha for sha, _ in lines)
    text = f"torch=={version}" + "".join(f" \\\n    --hash=sha256:{sha}" for sha in hashes) + "\n"
    return Locked("torch", version, frozenset(hashes), text)


def of_gpu_build(name: str) -> bool:
    """Return whether the package ``name`` is installed only with PyTorch's GPU build."""
    return name in GPU_BUILD or name.startswith(GPU_BUILD_PREFIXES)


def write(path: Path, sources: Sequence[str], packages: Iterable[Locked]) -> None:
    """Write a lock file and print its number of packages."""
    chosen = list(packages)
    path.write_text(HEADER.format(", ".join(sources)) + "".join(package.text for package in chosen))
    print(f"{path.relative_to(REQUIREMENTS.parent)}: {len(chosen)} packages")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write all lock files; return exit status 0, or 1 after printing why they were not written."""
    uv = next(iter(sys.argv[1:] if arguments is None else arguments), "uv")
    FOLDER.mkdir(exist_ok=True)
    try:
        resolved: dict[str, list[Locked]] = {}
        now = versions_in(ENVIRONMENT, SOURCES, TORCH_GPU)
        for name, ros in ROS_INPUTS.items():
            inputs = [REQUIREMENTS / file for file in (*INPUTS, ros)]
            resolved[name] = for_all_pythons(uv, inputs, now + versions_in(DISTRIBUTIONS[name]))
            # The next distribution gets the same versions of everything else.
            now = "".join(f"{p.name}=={p.version}\n" for p in resolved[name] if not p.name.startswith("ros-"))
        packages, of_ros = by_distribution(resolved)
        on_cpu = cpu_build(packages, CPU_SUMS.read_text())
        single = {}
        for name in SINGLE:
            path = FOLDER / name
            single[path] = for_all_pythons(uv, [REQUIREMENTS / name], versions_in(path))
    except (LockFailed, OSError) as failure:
        print(f"lock: {failure}", file=sys.stderr)
        return 1
    sources = [package for package in packages if package.name in map(normal, NOT_AS_WHEELS)]
    gpu = [package for package in packages if of_gpu_build(package.name)]
    every = (*INPUTS, *ROS_INPUTS.values())
    write(ENVIRONMENT, every, (package for package in packages if package not in sources + gpu))
    write(SOURCES, every, sources)
    for name, its in of_ros.items():
        write(DISTRIBUTIONS[name], (ROS_INPUTS[name],), its)
    write(TORCH_GPU, INPUTS[:1], gpu)
    write(TORCH_CPU, (INPUTS[0], CPU_SUMS.name), [on_cpu])
    for path, its in single.items():
        write(path, (path.name,), its)
    return 0


if __name__ == "__main__":
    sys.exit(main())
