"""A call about a part of the image: what a call about the crop gives, in pixels of the whole image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from grounder_parts import ANSWERS, IMAGE

from acs_core.errors import ImageError
from acs_core.geometry import Box
from acs_core.overlay import draw_result
from acs_core.request import GroundingRequest
from acs_core.serialize import result_from_dict, result_to_dict
from acs_core.types import SamplingConfig

# IMAGE is 126 x 84 pixels.
REGION = Box(20, 10, 104, 66)
SEED = SamplingConfig(seed=5, speculation=False)  # equal to the last bit, whatever was answered before


def shifted(box: Box, region: Box = REGION) -> Box:
    return Box(box.x1 + region.x1, box.y1 + region.y1, box.x2 + region.x1, box.y2 + region.y1)


@pytest.mark.parametrize("multiple", [False, True])
def test_the_result_is_that_of_the_crop_moved_to_its_place(grounders, answers, multiple):
    grounder = grounders()
    options = {"sampling": SEED, "multiple": multiple, "with_attention": True}
    answers(*ANSWERS)
    crop = grounder.ground(np.ascontiguousarray(IMAGE[10:66, 20:104]), "key", **options)
    answers(*ANSWERS)
    result = grounder.ground(IMAGE, "key", region=REGION, **options)
    assert crop.candidates and crop.region is None and result.region == REGION
    assert result.image_size == (126, 84)
    assert [c.box for c in result.candidates] == [shifted(c.box) for c in crop.candidates]
    assert [(d.box, d.score) for d in result.detections] == [(shifted(d.box), d.score) for d in crop.detections]
    assert [replace(c, box=Box(0, 0, 1, 1)) for c in result.candidates] == [
        replace(c, box=Box(0, 0, 1, 1)) for c in crop.candidates
    ]
    assert np.array_equal(result.attention, crop.attention) and result.responses == crop.responses
    assert all(c.box.clip(*result.image_size) == c.box for c in result.candidates)


@pytest.mark.parametrize(
    ("region", "whole"),
    [
        (Box(20.2, 10.7, 103.1, 65.5), REGION),
        (Box(-5, -5, 40, 400), Box(0, 0, 40, 84)),
        (Box(0, 0, 126, 84), Box(0, 0, 126, 84)),
    ],
)
def test_a_region_is_whole_pixels_of_the_image(region, whole):
    request = GroundingRequest.of(IMAGE, ["key"], {"region": region})
    assert request.region == whole and request.whole_size == (126, 84)
    assert request.image_size == (whole.width, whole.height)
    x, y = int(whole.x1), int(whole.y1)
    assert np.array_equal(request.image[0, 0], IMAGE[y, x]) and request.image.flags.c_contiguous


@pytest.mark.parametrize(
    ("region", "error", "said"),
    [
        (Box(200, 10, 300, 66), ImageError, r"the region \(200, 10, 300, 66\) has no area in the image of 126 x 84"),
        (Box(20, 10, float("nan"), 66), ImageError, "has no area"),
        (Box(20, 10, 21, 11), ImageError, r"the region \(20, 10, 21, 11\) cannot be searched: the image is 1 x 1"),
        ((20, 10, 104, 66), TypeError, "region must be a Box or None"),
    ],
)
def test_a_region_that_cannot_be_searched_is_refused(region, error, said):
    with pytest.raises(error, match=said):
        GroundingRequest.of(IMAGE, ["key"], {"region": region})


def test_the_region_is_kept_in_files_and_drawn(grounders, answers):
    answers(*ANSWERS)
    result = grounders().ground(IMAGE, "key", region=REGION, sampling=SEED)
    assert result_from_dict(result_to_dict(result)).region == REGION
    without = draw_result(IMAGE, replace(result, region=None))
    drawn = draw_result(IMAGE, result)
    factor = drawn.shape[1] // 126
    changed = (drawn != without).any(axis=2)[-84 * factor :]
    y, x = np.nonzero(changed)
    assert changed.any() and abs(x.min() / factor - 20) <= 1 and abs(y.max() / factor - 66) <= 1
