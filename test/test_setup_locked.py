"""What is downloaded is named by its SHA-256 in requirements/locked, and any other file is refused."""

import hashlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import xml.etree.ElementTree as ET
import zipfile
from importlib.metadata import distributions
from importlib.metadata import version as installed_version
from pathlib import Path

import install_locked
import lock
import locked
import pytest
from locked import DISTRIBUTIONS, ENVIRONMENT, SOURCES, TORCH_CPU, TORCH_GPU, parse, read, refusal
from run_logged import StepFailed
from set_up import SetUp

ALL = (
    ENVIRONMENT,
    *DISTRIBUTIONS.values(),
    SOURCES,
    TORCH_CPU,
    TORCH_GPU,
    *(locked.FOLDER / name for name in lock.SINGLE),
)
WORKSPACE = ("workspace.txt", "workspace_constraints.txt")  # for pip beside a distribution: not locked
PIN = re.compile(r"([a-z0-9-]+)(?:\[[a-z]+\])?==([0-9][0-9a-z.]*)")


def requirements(*names: str) -> list[tuple[str, str]]:
    """Name and version of every line of some files in requirements/."""
    lines = [line for name in names for line in (lock.REQUIREMENTS / name).read_text().splitlines()]
    pins = [PIN.fullmatch(line) for line in lines if line and not line.startswith("#")]
    assert pins and all(pins), "every requirement has one exact version"
    return [(pin[1], pin[2]) for pin in pins]


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.name)
def test_a_lock_file_holds_nothing_but_pins_with_hashes(path):
    text = path.read_text()
    packages = parse(text)
    assert packages and all(package.hashes for package in packages)
    assert len({package.name for package in packages}) == len(packages)
    assert text.count("--hash=sha256:") == sum(len(package.hashes) for package in packages)
    rest = re.sub(r"#.*", "", text).replace("\\", "").split()
    assert len(rest) == len(packages) + text.count("--hash="), "no options, markers or addresses"


def test_every_requirement_is_locked_in_its_version():
    environment = read(ENVIRONMENT, SOURCES, TORCH_GPU)
    for name, version in requirements(*lock.INPUTS):
        assert environment[name].version == version, f"{name}: run make lock"
    for ros, path in DISTRIBUTIONS.items():
        of_ros = {**environment, **read(path)}
        for name, version in requirements(lock.ROS_INPUTS[ros]):
            assert of_ros[name].version == version, f"{name}: run make lock"
    for file in lock.SINGLE:
        [(name, version)] = requirements(file)
        assert read(locked.FOLDER / file)[name].version == version, f"{name}: run make lock"


def test_every_file_of_requirements_is_read_by_the_tool(repo):
    assert {path.name for path in (repo / "requirements").glob("*.txt")} == {
        *lock.INPUTS,
        *lock.ROS_INPUTS.values(),
        *lock.SINGLE,
        *WORKSPACE,
    }


def test_a_colcon_workspace_gets_the_tested_versions_and_keeps_the_numpy_of_its_distribution(repo):
    environment = read(ENVIRONMENT, TORCH_GPU)
    pip, rosdep = dict(requirements("workspace.txt")), ET.parse(repo / "package.xml").findall("depend")
    assert {name: environment[name].version for name in pip} == pip
    assert set(dict(requirements("workspace_constraints.txt"))) == {"numpy", "setuptools"}
    by_rosdep = {element.text.removeprefix("python3-") for element in rosdep if element.text.startswith("python3-")}
    runtime = {{"opencv-python-headless": "opencv", "pillow": "pil"}.get(n, n) for n, _ in requirements("runtime.txt")}
    assert runtime == set(pip) | by_rosdep - {"yaml"}, "each is installed by rosdep or by pip, and none by both"
    assert not set(pip) & by_rosdep


def test_what_pip_installed_here_is_locked():
    """The Python parts that a ROS wheel carries have no INSTALLER record; an editable package was not downloaded."""
    ros = next(
        path for path in DISTRIBUTIONS.values() if read(path)["ros-rclpy"].version == installed_version("ros-rclpy")
    )
    environment = read(ENVIRONMENT, ros, SOURCES, TORCH_GPU, locked.FOLDER / "fuzz.txt")
    for found in distributions(path=[sysconfig.get_path("purelib")]):  # ray adds what it carries to sys.path
        name = locked.normal(found.metadata["Name"])
        from_index = (found.read_text("INSTALLER") or "").strip() == "pip" and name not in ("pip", "acs-ros")
        if from_index and Path(str(found.locate_file(""))).is_relative_to(sys.prefix):
            assert environment[name].version == found.version.split("+")[0]


def pins(*packages: str) -> list[locked.Locked]:
    """Packages ``name==version`` of a lock file."""
    return parse("".join(f"{package} \\\n    --hash=sha256:{'a' * 64}\n" for package in packages))


def test_packages_that_distributions_share_are_locked_once():
    common, of_ros = lock.by_distribution(
        {
            "a": pins("numpy==2", "ros-rcl==1", "ros-rmw==1"),
            "b": pins("empy==3", "numpy==2", "ros-rcl==2", "ros-rmw==1"),
        }
    )
    assert [p.name for p in common] == ["numpy"]
    assert {ros: [(p.name, p.version) for p in its] for ros, its in of_ros.items()} == {
        "a": [("ros-rcl", "1"), ("ros-rmw", "1")],
        "b": [("empy", "3"), ("ros-rcl", "2"), ("ros-rmw", "1")],
    }


def test_distributions_cannot_have_different_versions_of_a_shared_package():
    with pytest.raises(lock.LockFailed, match="a and b need different versions of numpy"):
        lock.by_distribution({"a": pins("numpy==2"), "b": pins("numpy==1")})


def test_no_lock_file_of_a_distribution_repeats_the_common_one():
    common = read(ENVIRONMENT, SOURCES, TORCH_GPU).keys()
    assert not any(common & read(path).keys() for path in DISTRIBUTIONS.values())
    assert not any(name.startswith("ros-") for name in common)


def test_the_package_is_built_with_the_locked_setuptools(repo):
    """``--no-build-isolation``: whatever the build asks for must be in the environment already."""
    needed = tomllib.loads((repo / "pyproject.toml").read_text())["build-system"]["requires"]
    assert {re.split(r"[<>=]", name)[0] for name in needed} <= read(ENVIRONMENT).keys()


def test_both_builds_of_torch_are_locked_in_one_version():
    cpu, gpu = read(TORCH_CPU), read(TORCH_GPU)
    assert cpu.keys() == {"torch"} and cpu["torch"].version == f"{gpu['torch'].version}+cpu"
    assert not cpu["torch"].hashes & gpu["torch"].hashes
    assert lock.cpu_build(gpu.values(), lock.CPU_SUMS.read_text()) == cpu["torch"], "run make lock"
    assert all(map(lock.of_gpu_build, gpu)) and not any(map(lock.of_gpu_build, read(ENVIRONMENT, SOURCES)))
    assert not any(map(lock.of_gpu_build, ("torchmetrics", "nvidia", "tritonclient")))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["torch-2.0+cpu-cp311-x.whl"], "no hash of torch 2.0\\+cpu for Python 3.12"),
        (["torch-2.0+cpu-cp311-x.whl", "torch-2.0+cpu-cp312-x.whl", "torch-1.9+cpu-cp312-x.whl"], "names torch-1.9"),
    ],
)
def test_hashes_of_cpu_builds_must_be_of_the_locked_version_and_complete(files, message):
    packages = parse(f"torch==2.0 \\\n    --hash=sha256:{'a' * 64}\n")
    with pytest.raises(lock.LockFailed, match=message):
        lock.cpu_build(packages, "# why\n" + "".join(f"{'b' * 64}  {file}\n" for file in files))


def test_nothing_is_installed_without_hashes(repo):
    """No ``pip install`` of the Makefile or the set-up, but that of the package itself, which downloads nothing."""
    makefile = (repo / "Makefile").read_text()
    assert "pip install" not in makefile
    assert sorted(re.findall(r"\$\(INSTALL\) \S+ (\S+\.txt)", makefile)) == sorted(lock.SINGLE)
    assert "--require-hashes" in locked.WHEELS_ONLY and "--require-hashes" in locked.BUILT_HERE
    assert re.findall(r"self\._pip\(\"\w+\.log\", (\S+)", (repo / "tools" / "set_up.py").read_text()) == [
        "*locked.WHEELS_ONLY,",
        "*locked.BUILT_HERE,",
        "*locked.WHEELS_ONLY,",
        "*locked.WHEELS_ONLY,",
        '"--no-deps",',
    ]


def wheel(folder: Path, text: str, version: str = "1.0") -> str:
    """Make a wheel of the package ``harmless`` with ``text`` in its module; its SHA-256."""
    folder.mkdir(exist_ok=True)
    path, about = folder / f"harmless-{version}-py3-none-any.whl", f"harmless-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("harmless.py", text)
        file.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: harmless\nVersion: {version}\n")
        file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{about}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> SetUp:
    made = SetUp(tmp_path_factory.mktemp("locked") / "venv")
    subprocess.run([sys.executable, "-m", "venv", str(made.venv)], check=True)
    made.work.mkdir()
    return made


@pytest.fixture
def set_up(environment, tmp_path, monkeypatch) -> SetUp:
    """An environment without ``harmless``, and a lock file that names it; no index but the folders of the test."""
    for path in environment.venv.glob("lib/python*/site-packages/harmless*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    sha = wheel(tmp_path / "good", "x = 1")
    (tmp_path / "locked.txt").write_text(f"harmless==1.0 \\\n    --hash=sha256:{sha}\n")
    monkeypatch.setattr(locked, "ENVIRONMENT", tmp_path / "locked.txt")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return environment


def install(set_up: SetUp) -> None:
    set_up._pip("wheels.log", *locked.WHEELS_ONLY, f"-r{locked.ENVIRONMENT}")


def installed(set_up: SetUp) -> str:
    """The module that was installed; "" without one."""
    return "".join(path.read_text() for path in set_up.venv.glob("lib/python*/site-packages/harmless.py"))


def test_a_wheel_with_the_right_hash_is_installed(set_up, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "good"))  # the user's own setting
    install(set_up)
    assert installed(set_up) == "x = 1"


def test_a_wheel_with_a_wrong_hash_is_refused_in_words(set_up, tmp_path, monkeypatch):
    sha = wheel(tmp_path / "changed", "x = 2")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "changed"))
    with pytest.raises(StepFailed) as failure:
        install(set_up)
    message = str(failure.value)
    for part in ("refused", "harmless==1.0", "changed/harmless-1.0-py3-none-any.whl", sha, "log"):
        assert part in message
    assert installed(set_up) == ""


def test_a_package_that_is_not_locked_with_a_hash_is_refused(set_up, tmp_path, monkeypatch):
    locked.ENVIRONMENT.write_text("harmless==1.0\n")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "good"))
    with pytest.raises(StepFailed, match="Hashes are required"):
        install(set_up)


def install_optional(set_up: SetUp, monkeypatch) -> int:
    """As ``make fuzz`` installs what not every Python has."""
    monkeypatch.setattr(locked, "FOLDER", locked.ENVIRONMENT.parent)
    return install_locked.main([str(set_up.python), "locked.txt", "--optional", "there is none"])


def test_an_optional_package_that_is_offered_is_installed(set_up, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "good"))
    assert install_optional(set_up, monkeypatch) == 0
    assert installed(set_up) == "x = 1" and "there is none" not in capfd.readouterr().err


def test_an_optional_package_that_is_not_offered_is_no_failure(set_up, monkeypatch, capfd):
    assert install_optional(set_up, monkeypatch) == 0
    assert capfd.readouterr().err == "there is none\n" and installed(set_up) == ""


def test_a_package_that_is_not_offered_and_that_the_user_constrains_is_no_failure(set_up, tmp_path, monkeypatch, capfd):
    (tmp_path / "mine.txt").write_text("harmless<2\n")
    monkeypatch.setenv("PIP_CONSTRAINT", str(tmp_path / "mine.txt"))
    assert install_optional(set_up, monkeypatch) == 0
    assert capfd.readouterr().err == "there is none\n" and installed(set_up) == ""


def test_an_optional_package_with_another_hash_is_a_failure(set_up, tmp_path, monkeypatch, capfd):
    wheel(tmp_path / "changed", "x = 2")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "changed"))
    assert install_optional(set_up, monkeypatch) != 0
    said = capfd.readouterr().err
    assert said.startswith("refused: ") and "harmless==1.0" in said and "there is none" not in said
    assert installed(set_up) == ""


def test_any_other_failure_of_an_optional_package_is_one(set_up, tmp_path, monkeypatch, capfd):
    locked.ENVIRONMENT.write_text("harmless==1.0\n")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "good"))
    assert install_optional(set_up, monkeypatch) != 0
    assert "Hashes are required" in capfd.readouterr().err


@pytest.fixture
def two_builds(set_up, tmp_path, monkeypatch) -> SetUp:
    """``harmless`` in the place of torch; its GPU build is always offered, its CPU build lies in the folder cpu."""
    builds = (("TORCH_CPU", "cpu", "1.0+cpu"), ("TORCH_GPU", "gpu", "1.0"))
    for name, folder, version in builds:
        sha = wheel(tmp_path / folder, folder, version)
        (tmp_path / f"{name}.txt").write_text(f"harmless=={version} \\\n    --hash=sha256:{sha}\n")
        monkeypatch.setattr(locked, name, tmp_path / f"{name}.txt")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "gpu"))
    return set_up


def test_the_gpu_build_is_taken_where_no_cpu_build_is_offered(two_builds):
    two_builds._install_torch()
    assert installed(two_builds) == "gpu"


def test_the_cpu_build_is_taken_where_it_is_offered(two_builds, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", f"{tmp_path / 'gpu'} {tmp_path / 'cpu'}")
    two_builds._install_torch()
    assert installed(two_builds) == "cpu"


def test_a_changed_cpu_build_is_refused_and_not_passed_over(two_builds, tmp_path, monkeypatch):
    wheel(tmp_path / "cpu", "changed", "1.0+cpu")
    monkeypatch.setenv("PIP_FIND_LINKS", f"{tmp_path / 'gpu'} {tmp_path / 'cpu'}")
    with pytest.raises(StepFailed, match=r"refused.*harmless==1\.0\+cpu"):
        two_builds._install_torch()
    assert installed(two_builds) == ""


def test_only_a_refusal_by_hash_is_called_one():
    assert refusal("ERROR: No matching distribution found for torch==9") is None


def compiles(versions: dict[str, str], monkeypatch) -> None:
    """A uv that locks ``x`` in the version that ``versions`` gives for each Python."""
    text = {python: f"x=={version} \\\n    --hash=sha256:{'a' * 64}\n" for python, version in versions.items()}
    monkeypatch.setattr(lock, "compiled", lambda uv, python, inputs, locked: text[python])


def test_one_lock_serves_every_python_or_none_is_written(monkeypatch):
    compiles({"3.11": "1", "3.12": "1"}, monkeypatch)
    assert [package.version for package in lock.for_all_pythons("uv", [], "")] == ["1"]
    compiles({"3.11": "1", "3.12": "2"}, monkeypatch)
    with pytest.raises(lock.LockFailed, match=r"3\.11 and 3\.12 need different versions of x"):
        lock.for_all_pythons("uv", [], "")
