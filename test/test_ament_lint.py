"""The linters of ament, as `colcon test` runs them in a ROS distribution; skipped where they are not installed."""

import contextlib
import shutil
import xml.etree.ElementTree as ET

import pytest

PACKAGES = ("package.xml", "msg/acs_msgs/package.xml")
CODE = ("acs_core", "acs_ros", "launch", "setup.py", "test", "tools", "training")


@pytest.mark.linter
@pytest.mark.flake8
def test_flake8(repo):
    ament = pytest.importorskip("ament_flake8.main")
    with contextlib.chdir(repo):
        status, errors = ament.main_with_errors(["--config", str(repo / ".flake8"), *CODE])
    assert (status, errors) == (0, [])


@pytest.mark.linter
@pytest.mark.xmllint
def test_xmllint(repo):
    """Compares with the schema that the files name, so it needs the network or an XML catalogue."""
    ament = pytest.importorskip("ament_xmllint.main")
    if shutil.which("xmllint") is None:
        pytest.skip("no xmllint")
    assert ament.main([str(repo / name) for name in PACKAGES]) == 0


@pytest.mark.linter
def test_changelogs_can_be_released(repo):
    """bloom and catkin_prepare_release read them."""
    from catkin_pkg.changelog import get_changelog_from_path

    for name in PACKAGES:
        package = ET.parse(repo / name).getroot()
        changelog = get_changelog_from_path(str((repo / name).parent), package.findtext("name"))
        assert changelog.package_name == package.findtext("name")
        released = [version for version, _, _ in changelog.foreach_version()]  # "Forthcoming" is no version
        text = (repo / name).with_name("CHANGELOG.rst").read_text()
        assert "\nForthcoming\n-----------\n* " in text or released[:1] == [package.findtext("version")]


@pytest.mark.linter
def test_packages_are_valid_for_a_release(repo):
    from catkin_pkg.package import parse_package

    for name in PACKAGES:
        warnings: list[str] = []
        package = parse_package(str(repo / name), warnings=warnings)
        package.validate(warnings=warnings)
        assert warnings == []
        assert [licence.file for licence in package.licenses] == ["LICENSE"]
        assert (repo / name).with_name("LICENSE").read_text() == (repo / "LICENSE").read_text()
        assert (repo / name).with_name("QUALITY_DECLARATION.md").exists()
        assert not any(person.email.endswith("@example.org") for person in package.maintainers)
