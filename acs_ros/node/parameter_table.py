"""The node's parameters: one table, in the groups that the documentation shows them in."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

from acs_core.arguments import MAX_PHRASE_CHARS
from acs_core.image import MAX_PIXELS
from acs_core.pixels import LEAST_BITS, MOST_BITS
from acs_core.plain_text import shorten
from acs_core.types import (
    COORDINATE_FRAMES,
    DEFAULT_MODEL,
    DEFAULT_PREFIX_BYTES,
    FAMILY_FRAME,
    MAX_IMAGE_TOKENS,
    MAX_PREFIX_BYTES,
)

TYPE_NAMES = {str: "string", int: "integer", float: "double", bool: "bool"}
IN_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter. ``low``/``high`` are inclusive; ``live``: may change while the node is configured."""

    name: str
    default: str | int | float | bool
    description: str
    low: float | None = None
    high: float | None = None
    live: bool = True
    choices: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()  # values that look like choices, and why they are none

    @property
    def type_name(self) -> str:
        """The type as ROS calls it."""
        return TYPE_NAMES[type(self.default)]

    def limit(self, value: float | None) -> str:
        """``low`` or ``high`` as a text."""
        if value is None:
            return "any"
        return str(int(value)) if isinstance(self.default, int) else f"{value:.12g}"

    def problem(self, value: object) -> str:
        """What is wrong with ``value``, or an empty string."""
        wanted = type(self.default)
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            return f"{self.name} must be {IN_WORDS[wanted]}, got {shorten(value)}"
        if self.choices and value not in self.choices:
            why = next((f": {reason}" for name, reason in self.refused if name == value), "")
            return f"{self.name} must be one of {', '.join(self.choices)}; got {shorten(value)}{why}"
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if isinstance(value, float) and not math.isfinite(value):
                return f"{self.name} must be a finite number, got {value}"
            low, high = self.low, self.high
            if (low is not None and value < low) or (high is not None and value > high):
                return f"{self.name} must be in [{self.limit(low)}, {self.limit(high)}], got {shorten(value)}"
        return ""

    def descriptor(self) -> ParameterDescriptor:
        """What ``ros2 param describe`` shows."""
        when = "" if self.live else " Read when the node is configured; change it in the state unconfigured."
        made = ParameterDescriptor(name=self.name, description=self.description + when, dynamic_typing=False)
        if self.choices:
            made.additional_constraints = "one of: " + ", ".join(self.choices)
        if self.low is not None and self.high is not None:
            if isinstance(self.default, int):
                made.integer_range = [IntegerRange(from_value=int(self.low), to_value=int(self.high), step=0)]
            else:
                made.floating_point_range = [FloatingPointRange(from_value=self.low, to_value=self.high, step=0.0)]
        return made


CONTINUOUS, ON_DEMAND = "continuous", "on_demand"
RAW, COMPRESSED, COMPRESSED_DEPTH = "raw", "compressed", "compressedDepth"
STREAM = "a video stream, in which a lost frame breaks the next ones; let the driver publish raw or compressed images"
SELECTOR_HELP = (
    "How the answer is picked from the sampled boxes: acs-free, acs-learned, acs-fusion, acs-joint, greedy, ...; auto: "
    "acs-fusion-box, acs-free or consensus, the first whose file is known for the model."
)

MODEL = (
    ParameterSpec(
        "model",
        DEFAULT_MODEL,
        "Model, or files built for one: a name shipped with acs, a folder, or a Hugging Face id.",
        live=False,
    ),
    ParameterSpec("revision", "", "Commit, tag or branch of the Hugging Face id; empty takes the newest.", live=False),
    ParameterSpec("selector", "auto", SELECTOR_HELP, live=False),
    ParameterSpec(
        "heads",
        "",
        "Head file (JSON) for acs-free and acs-fusion, or table-1-from-1; empty takes the one shipped for the model.",
        live=False,
    ),
    ParameterSpec(
        "regressor",
        "",
        "What acs-learned predicts with (safetensors); empty takes the shipped file.",
        live=False,
    ),
    ParameterSpec(
        "joint_model",
        "",
        "What acs-joint predicts with (safetensors); empty takes the shipped file.",
        live=False,
    ),
    ParameterSpec(
        "calibration", "", "Calibration (JSON) of the score; empty takes the shipped one, if any.", live=False
    ),
    ParameterSpec("device", "auto", "Torch device: auto, cpu, cuda, cuda:1, ...", live=False),
    ParameterSpec(
        "dtype",
        "auto",
        "Number type of the weights: auto takes bfloat16 on a GPU and float32 on a CPU.",
        live=False,
        choices=("auto", "float32", "float16", "bfloat16"),
    ),
    ParameterSpec(
        "quantization",
        "none",
        "Weights of the linear layers in 8 or 4 bits, by bitsandbytes, for GPUs with little memory.",
        live=False,
        choices=("none", "8bit", "4bit"),
    ),
    ParameterSpec(
        "max_image_tokens",
        0,
        "Budget of image tokens of a picture, at least 16; larger pictures are scaled down. 0: the default of the "
        "model's family.",
        0,
        MAX_IMAGE_TOKENS,
        live=False,
    ),
    ParameterSpec(
        "coordinate_frame",
        FAMILY_FRAME,
        "How the model states coordinates: as its family does, as 0-1000, in pixels of the resized or of the original "
        "picture, or as 0-1. acs-bench check-model finds out which.",
        live=False,
        choices=COORDINATE_FRAMES,
    ),
    ParameterSpec(
        "prefix_bytes",
        DEFAULT_PREFIX_BYTES,
        "Most bytes of images that stay read for further goals about the same frame, and for second looks; 0 keeps "
        "none.",
        0,
        MAX_PREFIX_BYTES,
        live=False,
    ),
)
ASKING = (
    ParameterSpec(
        "initial_query", "", "Phrases asked from the start, until ~/query or a service says otherwise.", live=False
    ),
    ParameterSpec(
        "mode",
        CONTINUOUS,
        "continuous asks the standing queries of every frame the model has time for; on_demand asks them once each "
        "time they are set, and subscribes to the camera only while somebody waits for an answer.",
        choices=(CONTINUOUS, ON_DEMAND),
    ),
    ParameterSpec("max_rate", 0.0, "Most frames asked per second; 0: as many as the model has time for.", 0.0, 1000.0),
    ParameterSpec("max_queries", 8, "Most standing queries at a time.", 1, 64),
    ParameterSpec("max_phrase_chars", MAX_PHRASE_CHARS, "Longest accepted phrase, in characters.", 1, MAX_PHRASE_CHARS),
    ParameterSpec("max_goals", 8, "Most goals of ~/ground that wait or run at a time; more are aborted.", 1, 256),
    ParameterSpec("samples", 10, "Responses sampled per phrase and frame (N).", 1, 256),
    ParameterSpec(
        "auto_samples", False, "Stop sampling early when the answer is settled; samples is then the most drawn."
    ),
    ParameterSpec("temperature", 0.5, "Sampling temperature (tau).", 0.01, 10.0),
    ParameterSpec("top_p", 0.9, "Nucleus sampling: smallest set of tokens with this probability.", 0.001, 1.0),
    ParameterSpec("top_k", 100, "Sample among the k likeliest tokens; 0 keeps all.", 0, 1_000_000),
    ParameterSpec("max_new_tokens", 256, "Longest response, in tokens.", 1, 8192),
    ParameterSpec(
        "whole_responses",
        False,
        "Let the model write on after the first box of a response; so it always does with multiple, and for selectors "
        "that read what follows.",
    ),
    ParameterSpec("speculation", True, "Draft nearly certain tokens and check them together, for speed."),
    ParameterSpec("seed", -1, "Seed of every call; -1 draws a fresh one per frame.", -1, 2**31 - 1),
    ParameterSpec("deadline", 0.0, "Seconds after which sampling about a frame ends; 0: none.", 0.0, 3600.0),
    ParameterSpec(
        "second_look",
        False,
        "Enlarge the place of the answer and ask again: with acs-fusion better boxes of small objects, for about twice "
        "the time; not with multiple.",
    ),
    ParameterSpec("multiple", False, "Answer with every object the samples agree on, not only the best one."),
    ParameterSpec("min_votes", 2, "With multiple: how many responses must contain an object.", 1, 256),
    ParameterSpec(
        "check_labels", True, "Rank boxes that the model labels as something else than the phrase below the others."
    ),
    ParameterSpec("min_score", 0.0, "Boxes with a lower score are not published: the node abstains.", 0.0, 1.0),
    ParameterSpec(
        "min_precision",
        0.0,
        "Publish only boxes with scores at which this share has IoU >= 0.5, with 95 % confidence on questions as those "
        "of the calibration; 0: no such threshold. Not for a goal with a min_score of its own.",
        0.0,
        1.0,
    ),
)
INPUTS = (
    ParameterSpec(
        "cameras",
        "",
        "Names of several cameras, separated by blanks. Each has its own topics, like ~/left/image and "
        "~/left/detections; empty: one camera, ~/image.",
        live=False,
    ),
    ParameterSpec(
        "image_transport",
        RAW,
        "raw: sensor_msgs/Image on ~/image; compressed: sensor_msgs/CompressedImage on ~/image/compressed, or, with "
        "~/image remapped, on that topic and /compressed.",
        live=False,
        choices=(RAW, COMPRESSED),
        refused=(
            ("theora", STREAM),
            ("ffmpeg", STREAM),
            ("zstd", "not decoded here; let the driver publish raw or compressed images"),
            (COMPRESSED_DEPTH, "that is for depth images: the parameter depth_transport"),
        ),
    ),
    ParameterSpec("max_image_pixels", MAX_PIXELS, "Largest accepted image, in pixels.", 1, MAX_PIXELS),
    ParameterSpec(
        "accept_tiff",
        False,
        "Take compressed images in TIFF too. Its library writes a line of its own to stderr for each broken one.",
    ),
    ParameterSpec(
        "accept_16uc1",
        False,
        "Accept images of encoding 16UC1 as grey, like mono16; depth images have it, too.",
    ),
    ParameterSpec(
        "image_bits",
        MOST_BITS,
        "Number of bits that the values of 16-bit images use: 12 for a 12-bit camera, whose white is 4095.",
        LEAST_BITS,
        MOST_BITS,
    ),
    ParameterSpec(
        "use_depth", False, "Subscribe to ~/depth and ~/camera_info, and publish ~/detections_3d.", live=False
    ),
    ParameterSpec(
        "depth_transport",
        RAW,
        "raw: sensor_msgs/Image on ~/depth; compressedDepth: sensor_msgs/CompressedImage on ~/depth/compressedDepth, "
        "as PNG or RVL; named like the topics of image_transport.",
        live=False,
        choices=(RAW, COMPRESSED_DEPTH),
        refused=((COMPRESSED, "its PNG is published only for 16UC1; compressedDepth is for both depth encodings"),),
    ),
    ParameterSpec(
        "depth_tolerance",
        0.05,
        "Longest time between an image and its depth image or camera info, in seconds.",
        0.0,
        10.0,
    ),
    ParameterSpec(
        "target_frame",
        "",
        "Frame of ~/detections_3d, by the transforms of /tf and /tf_static at the image's stamp; empty: the camera's.",
        live=False,
    ),
    ParameterSpec(
        "transform_tolerance",
        0.1,
        "Longest time by which the newest transform may be older than the image, in seconds.",
        0.0,
        60.0,
    ),
    ParameterSpec(
        "depth_unit",
        0.0,
        "Metres per unit of a depth image; 0: by its encoding, millimetres for 16UC1 and metres for 32FC1.",
        0.0,
        1.0,
    ),
    ParameterSpec("min_depth", 0.05, "Smaller depths do not count, in metres.", 0.0, 1000.0),
    ParameterSpec(
        "max_depth",
        50.0,
        "Larger depths do not count, in metres. With a thousand times min_depth, no depth counts in a wrong unit.",
        0.0,
        1e6,
    ),
    ParameterSpec(
        "rectified",
        True,
        "Whether the images are rectified (then P of camera_info holds) or raw (then K, and D undistorts).",
    ),
    ParameterSpec(
        "accept_scaled_images",
        False,
        "Take images of another size than camera_info says, in the same ratio, as the same view scaled.",
    ),
    ParameterSpec(
        "accept_other_frames",
        False,
        "Take depth images and camera_info with another frame_id than the image's as the same view.",
    ),
)
OUTPUTS = (
    ParameterSpec("jpeg_quality", 80, "Quality of the compressed pictures.", 1, 100),
    ParameterSpec("marker_depth", 1.0, "Metres from the camera at which boxes without depth are drawn.", 0.01, 1000.0),
    ParameterSpec("tracking", False, "Follow the boxes between answers: ~/tracks at camera rate, and ids.", live=False),
    ParameterSpec(
        "track_half_life", 2.0, "Seconds after which the score of a track that is not confirmed halves.", 0.01, 600.0
    ),
    ParameterSpec("track_min_score", 0.05, "A track whose score has decayed below this ends.", 0.0, 1.0),
)
DIAGNOSTICS = (
    ParameterSpec("diagnostics_period", 1.0, "Seconds between two messages on /diagnostics.", 0.1, 60.0, live=False),
    ParameterSpec(
        "image_timeout", 5.0, "Seconds without an image after which the node warns, and goals abort.", 0.1, 3600.0
    ),
    ParameterSpec(
        "stale_after", 5.0, "Age of an image, in seconds, from which its stamp is called stale; 0: any.", 0.0, 1e6
    ),
    ParameterSpec("hang_after", 60.0, "Seconds of work on one frame after which it is called an error.", 0.1, 36000.0),
    ParameterSpec(
        "freeze_timeout",
        30.0,
        "Seconds in which nothing at all runs in the process after which it ends with exit code 1, so that what "
        "started it can start it again; 0: never, as under a debugger.",
        0.0,
        3600.0,
        live=False,
    ),
    ParameterSpec("warn_input_rate", 0.0, "Warn when fewer images come per second; 0: never.", 0.0, 1000.0),
    ParameterSpec("warn_answer_rate", 0.0, "Warn when fewer answers leave per second; 0: never.", 0.0, 1000.0),
    ParameterSpec(
        "warn_latency", 0.0, "Warn when the 95th percentile of latency is above these seconds; 0: never.", 0.0, 3600.0
    ),
    ParameterSpec(
        "warn_unparseable",
        0.5,
        "Warn when this share of the last responses gave no box, nor said that there is none.",
        0.0,
        1.0,
    ),
    ParameterSpec("warn_host_memory", 0.0, "Warn above this resident memory, in GB; 0: never.", 0.0, 1e5),
    ParameterSpec("warn_gpu_memory", 0.95, "Warn when this share of the GPU's memory is in use.", 0.0, 1.0),
)
NODE = (
    ParameterSpec(
        "autostart", False, "Configure and activate by itself at start, without a lifecycle manager.", live=False
    ),
    ParameterSpec(
        "bond_heartbeat_period",
        0.1,
        "Seconds between two heartbeats to a lifecycle manager, where bondpy is installed; 0: no bond.",
        0.0,
        10.0,
        live=False,
    ),
)
GROUPS: dict[str, tuple[ParameterSpec, ...]] = {
    "Model": MODEL,
    "Asking": ASKING,
    "Inputs": INPUTS,
    "Outputs": OUTPUTS,
    "Diagnostics": DIAGNOSTICS,
    "Node": NODE,
}
SPECS: tuple[ParameterSpec, ...] = tuple(spec for group in GROUPS.values() for spec in group)
