"""What importing the package does to a process, in a process of its own."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from xml.etree import ElementTree

import pytest

import acs_core


@pytest.mark.parametrize(("before", "after"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_sleep_unless_somebody_says_otherwise(before, after):
    env = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"} | (
        {"OMP_WAIT_POLICY": before} if before else {}
    )
    code = "import acs_core, os, sys; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert told.split() == [after, "False"]  # torch reads it when it is loaded


def told(code, **environment):
    """What a process of its own prints."""
    env = os.environ | environment
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout


def test_the_package_is_light_to_import_and_shows_its_public_names():
    code = "import acs_core, sys; print(acs_core.__version__, *dir(acs_core), 'loaded:', *sys.modules)"
    names, modules = told(code).split("loaded:")
    assert set(acs_core.__all__) <= set(names.split())
    assert not {"torch", "numpy", "transformers", "acs_core.types"} & set(modules.split())


def test_types_and_images_need_no_torch():
    code = "from acs_core import SamplingConfig, Candidate, read_image; import sys; print('torch' in sys.modules)"
    assert told(code).split() == ["False"]


def test_public_names_are_the_objects_of_their_modules():
    from acs_core import Candidate, Detection, Grounder, GroundingResult, SamplingConfig, grounder, image, types

    assert Grounder is grounder.Grounder and acs_core.read_image is image.read_image
    for public in (Candidate, Detection, GroundingResult, SamplingConfig):
        assert public is getattr(types, public.__name__)
    assert {name for name in acs_core.__all__ if not hasattr(acs_core, name)} == set()
    with pytest.raises(AttributeError, match="no attribute 'Grunder'"):
        _ = acs_core.Grunder


def test_the_version_is_the_one_of_package_xml():
    manifest = Path(acs_core.__file__).parent.parent / "package.xml"
    assert acs_core.__version__ == ElementTree.parse(manifest).findtext("version")


def test_without_package_xml_the_version_is_that_of_the_installed_distribution(tmp_path):
    package = Path(acs_core.__file__).parent
    (tmp_path / "acs_core").mkdir()
    (tmp_path / "acs_core" / "__init__.py").write_text((package / "__init__.py").read_text())
    code = "import acs_core; print(acs_core.__file__, acs_core.__version__)"
    paths = {"PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"}
    place, _ = told(code, **paths).split()
    assert place.startswith(str(tmp_path))
    info = tmp_path / "acs_ros-7.8.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acs_ros\nVersion: 7.8.9\n")
    assert told(code, **paths).split()[1] == "7.8.9"


def test_without_package_xml_and_distribution_the_version_is_unknown(monkeypatch, tmp_path):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(acs_core, "__file__", str(tmp_path / "acs_core" / "__init__.py"))
    monkeypatch.setattr(metadata, "version", absent)
    assert acs_core._version() == "unknown"
