"""One package for pip and colcon (ament_python): the rooms acs_core, acs_ros and training, and the ROS data files."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path

from setuptools import Distribution, find_packages, setup

if sys.version_info < (3, 11):  # noqa: UP036 - colcon does not read python_requires
    found = ".".join(map(str, sys.version_info[:2]))
    sys.exit(f"acs needs Python 3.11 or later (ROS 2 Jazzy or later), this is Python {found}")

NAME = "acs_ros"
ROOT = Path(__file__).resolve().parent
SHARE = Path("share") / NAME
PACKAGE = ET.parse(ROOT / "package.xml").getroot()
(MAINTAINER,) = PACKAGE.findall("maintainer")

# What `ros2 run` and launch files may start; each is a function of acs_ros.commands.
ROS_EXECUTABLES = (
    "grounding_node",
    "bag_player",
    "ask_by_topic",
    "ask_by_service",
    "ask_by_action",
    "acs-replay",
)


def tree(folder: str, pattern: str) -> list[tuple[str, list[str]]]:
    """``data_files`` entries that install the files of ``folder`` under share/, subfolders kept."""
    entries: dict[str, list[str]] = {}
    for path in sorted((ROOT / folder).rglob(pattern)):
        if path.is_file() and "__pycache__" not in path.parts:
            relative = path.relative_to(ROOT)
            entries.setdefault(str(SHARE / relative.parent), []).append(str(relative))
    return list(entries.items())


class AcsDistribution(Distribution):
    """An editable install (pip install -e) copies data files only where the distribution answers ``has_data``, a name
    that setuptools asks for and does not define."""

    def has_data(self) -> bool:
        """Whether there are files for share/ and lib/."""
        return bool(self.data_files)


setup(
    name=NAME,
    distclass=AcsDistribution,
    version=PACKAGE.findtext("version"),
    description="Language grounding of small objects by attention-based candidate selection, for ROS 2",
    license="Apache-2.0",
    license_files=["LICENSE"],
    maintainer=MAINTAINER.text,
    maintainer_email=MAINTAINER.get("email"),
    python_requires=">=3.11",
    packages=find_packages(include=["acs_core*", "acs_ros*", "training*"]),
    package_data={"": ["py.typed", "assets/**/*"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (str(SHARE), ["package.xml"]),
        (f"lib/{NAME}", [f"resource/ros2_run/{name}" for name in ROS_EXECUTABLES]),
        *tree("launch", "*.launch.py"),
        *tree("config", "*"),
    ],
    # rclpy and the messages come from ROS: a distribution, or the wheels of requirements/ros_*.txt.
    install_requires=[
        "accelerate",
        "torch>=2.13",
        "transformers>=5.23,<5.25",  # what was tested: make test, and make test TRANSFORMERS=newest
        "huggingface-hub",
        "jinja2",
        "numpy",
        "opencv-python-headless",
        "pillow",
        "rich",
        "rosbags",
        "safetensors",
        "typer",
    ],
    extras_require={
        "peers": ["ctranslate2"],  # acs-bench whole and gpu-check compare with it
        "quantization": ["bitsandbytes"],
        "stress": ["matplotlib", "psutil"],
        "training": [
            "lightning",
            "matplotlib",
            "pycocotools",
            "pyyaml",
            "ray[data]",
            "scikit-learn",
            "scipy",
            "torchmetrics",
            "zarr>=3",
        ],
        "test": ["hypothesis", "pytest<8.4"],
    },
    entry_points={
        "console_scripts": [
            # The modules named here import nothing: Ctrl-C may come while a command imports what it needs.
            "acs-bench = acs_ros.commands:acs_bench",
            "acs-ground = acs_ros.commands:acs_ground",
            "acs-load = acs_ros.commands:acs_load",
            "acs-soak = acs_ros.commands:acs_soak",
            "acs-train = acs_ros.commands:acs_train",
            *(f"{name} = acs_ros.commands:{name.replace('-', '_')}" for name in ROS_EXECUTABLES),
        ]
    },
    zip_safe=False,
)
