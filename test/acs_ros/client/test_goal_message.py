"""The message of a goal: what is no image asks nothing, since a goal without one asks about the camera's next frame."""

import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image

from acs_core.errors import ImageError
from acs_core.geometry import Box
from acs_ros.client.goal_message import make_goal
from acs_ros.client.grounding_client import GroundingClient


@pytest.fixture
def files(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "photo.png").write_bytes(b"bytes")
    return tmp_path


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((0, 0, 3), np.uint8),
        np.zeros((4, 0, 3), np.uint8),
        Image(),
        CompressedImage(format="png"),
        "FILES/empty.png",
        "FILES",
        "",
    ],
    ids=repr,
)
def test_an_image_without_pixels_is_refused(image, files):
    given = image.replace("FILES", str(files)) if isinstance(image, str) else image
    with pytest.raises(ImageError, match="the image is empty"):
        make_goal("key", given)


@pytest.mark.parametrize("image", [5, b"png", ["photo.png"], True])
def test_what_is_no_image_is_named_by_its_type(image):
    with pytest.raises(TypeError, match=f"image must be .*{type(image).__name__}"):
        make_goal("key", image)


@pytest.mark.parametrize("region", [(1, 2, 30, 40), "all", np.zeros(4)])
def test_what_is_no_region_is_named(region):
    with pytest.raises(TypeError, match="region must be a Box, a RegionOfInterest or None"):
        make_goal("key", None, region=region)


def test_images_and_regions_travel(files):
    goal, _ = make_goal("key", files / "photo.png", region=Box(1, 2, 30, 40))
    assert bytes(goal.compressed_image.data) == b"bytes" and goal.compressed_image.format == "png"
    assert (goal.region.x_offset, goal.region.width) == (1, 29)
    picture = np.zeros((2, 3, 3), np.uint8)
    assert make_goal("key", picture)[0].image.width == 3
    assert not make_goal("key", None)[0].image.data


@pytest.mark.parametrize("target", ["", "/", "bad name", "/grounding/", "a//b", "9lives"])
def test_a_target_that_is_no_name_is_refused_before_a_node_is_made(target):
    with pytest.raises(ValueError, match="target must be the full name of a node"):
        GroundingClient(target)
