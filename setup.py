"""One package for pip and colcon (ament_python): the rooms acs_core, acs_ros and training, and the ROS data files."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from setuptools import Distribution, find_packages, setup

NAME = "acs_ros"
ROOT = Path(__file__).resolve().parent
SHARE = Path("share") / NAME

# What `ros2 run` and launch files may start; each is a module of acs_ros with a main().
ROS_EXECUTABLES = {
    "grounding_node": "main",
    "grounding_demo": "demo",
    "bag_player": "bag_player",
    "ask_by_topic": "examples.ask_by_topic",
    "ask_by_service": "examples.ask_by_service",
    "ask_by_action": "examples.ask_by_action",
    "acs-replay": "replay.cli",
}


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
    version=ET.parse(ROOT / "package.xml").findtext("version"),
    description="Language grounding of small objects by attention-based candidate selection, for ROS 2",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["acs_bench*", "acs_core*", "acs_eval*", "acs_ros*", "acs_stress*", "training*"]),
    package_data={"": ["py.typed", "assets/**/*"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (str(SHARE), ["package.xml"]),
        (f"lib/{NAME}", [f"resource/ros2_run/{name}" for name in ROS_EXECUTABLES]),
        *tree("launch", "*.launch.py"),
        *tree("config", "*"),
    ],
    # rclpy and the messages come from ROS: a distribution, or the wheels of requirements/ros.txt.
    install_requires=[
        "accelerate",
        "torch>=2.13",
        "transformers>=5.23,<6",
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
        "quantization": ["bitsandbytes"],
        "stress": ["matplotlib", "psutil"],
        "training": [
            "lightning",
            "matplotlib",
            "pycocotools",
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
            "acs-bench = acs_bench.cli:main",
            "acs-ground = acs_core.cli:main",
            "acs-load = acs_stress.load_cli:main",
            "acs-soak = acs_stress.cli:main",
            "acs-train = training.cli:main",
            *(f"{name} = acs_ros.{module}:main" for name, module in ROS_EXECUTABLES.items()),
        ]
    },
    zip_safe=False,
)
