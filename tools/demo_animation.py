"""``python tools/demo_animation.py``: makes docs/images/demo.gif, what the default model answers about the demo bag."""

from __future__ import annotations

from pathlib import Path

from PIL import Image as Picture
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import String

from acs_core import Grounder
from acs_core.overlay import draw_result
from acs_ros.bags.bags import DEMO_BAG, IMAGE_TOPIC, QUERY_TOPIC
from acs_ros.bags.reader import Bag
from acs_ros.conversions.images import image_to_rgb

OUT = Path(__file__).resolve().parents[1] / "docs" / "images" / "demo.gif"
MILLISECONDS = 1200  # of each frame


def main() -> None:
    """Ask about each frame what the bag asks, and write the pictures as an animation."""
    grounder, phrase, pictures = Grounder.from_pretrained(device="cpu"), "", []
    with Bag(DEMO_BAG) as bag:
        for topic, _, raw in bag.messages((QUERY_TOPIC, IMAGE_TOPIC)):
            if topic == QUERY_TOPIC:
                phrase = deserialize_message(raw, String).data
                continue
            image = image_to_rgb(deserialize_message(raw, Image))
            drawn = Picture.fromarray(draw_result(image, grounder.ground(image, phrase, seed=1)))
            pictures.append(drawn.quantize(256, method=Picture.Quantize.MAXCOVERAGE, dither=Picture.Dither.NONE))
    pictures[0].save(OUT, save_all=True, append_images=pictures[1:], duration=MILLISECONDS, loop=0, optimize=True)
    print(f"{OUT}: {len(pictures)} frames, {OUT.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
