"""The node's parameters: one table, in the groups that the documentation shows them in."""

from __future__ import annotations

from acs_core.image import MAX_PIXELS
from acs_core.phrase import MAX_PHRASE_CHARS
from acs_ros.parameter_spec import Spec

CONTINUOUS, ON_DEMAND = "continuous", "on_demand"
RAW, COMPRESSED = "raw", "compressed"
SELECTOR_HELP = (
    "How the answer is picked from the sampled boxes: acs-free, acs-learned, acs-fusion, acs-joint, greedy, ..."
)

MODEL = (
    Spec("model", "tiny-internvl", "Model: a name shipped with acs, a folder, or a Hugging Face id.", live=False),
    Spec("revision", "", "Commit or tag of a Hugging Face model; empty takes the newest.", live=False),
    Spec("selector", "acs-free", SELECTOR_HELP, live=False),
    Spec(
        "heads",
        "",
        "Head file (JSON) for acs-free and acs-fusion; empty takes the one shipped for the model.",
        live=False,
    ),
    Spec(
        "regressor",
        "",
        "What acs-learned or acs-joint predicts with (safetensors); empty takes the shipped file.",
        live=False,
    ),
    Spec("calibration", "", "Calibration (JSON) of the score; empty takes the shipped one, if any.", live=False),
    Spec("device", "auto", "Torch device: auto, cpu, cuda, cuda:1, ...", live=False),
    Spec(
        "dtype",
        "auto",
        "Number type of the weights: auto takes bfloat16 on a GPU and float32 on a CPU.",
        live=False,
        choices=("auto", "float32", "float16", "bfloat16"),
    ),
    Spec(
        "quantization",
        "none",
        "Weights of the linear layers in 8 or 4 bits, by bitsandbytes, for GPUs with little memory.",
        live=False,
        choices=("none", "8bit", "4bit"),
    ),
)
ASKING = (
    Spec("initial_query", "", "Phrases asked from the start, until ~/query or a service says otherwise.", live=False),
    Spec(
        "mode",
        CONTINUOUS,
        "continuous asks the standing queries of every frame the model has time for; on_demand asks them once each "
        "time they are set, and subscribes to the camera only while somebody waits for an answer.",
        choices=(CONTINUOUS, ON_DEMAND),
    ),
    Spec("max_rate", 0.0, "Most frames asked per second; 0: as many as the model has time for.", 0.0, 1000.0),
    Spec("max_queries", 8, "Most standing queries at a time.", 1, 64),
    Spec("max_phrase_chars", MAX_PHRASE_CHARS, "Longest accepted phrase, in characters.", 1, MAX_PHRASE_CHARS),
    Spec("max_goals", 8, "Most goals of ~/ground that wait or run at a time; more are aborted.", 1, 256),
    Spec("samples", 10, "Responses sampled per phrase and frame (N).", 1, 256),
    Spec("auto_samples", False, "Stop sampling early when the answer is settled; samples is then the most drawn."),
    Spec("temperature", 0.5, "Sampling temperature (tau).", 0.01, 10.0),
    Spec("top_p", 0.9, "Nucleus sampling: smallest set of tokens with this probability.", 0.001, 1.0),
    Spec("top_k", 100, "Sample among the k likeliest tokens; 0 keeps all.", 0, 1_000_000),
    Spec("max_new_tokens", 256, "Longest response, in tokens.", 1, 8192),
    Spec("seed", -1, "Seed of every call; -1 draws a fresh one per frame.", -1, 2**31 - 1),
    Spec("deadline", 0.0, "Seconds after which sampling about a frame ends; 0: none.", 0.0, 3600.0),
    Spec(
        "second_look",
        False,
        "Enlarge the place of the answer and ask again: with acs-fusion better boxes of small objects, for about twice "
        "the time; not with multiple.",
    ),
    Spec("multiple", False, "Answer with every object the samples agree on, not only the best one."),
    Spec("min_votes", 2, "With multiple: how many responses must contain an object.", 1, 256),
    Spec("min_score", 0.0, "Boxes with a lower score are not published: the node abstains.", 0.0, 1.0),
)
INPUTS = (
    Spec(
        "cameras",
        "",
        "Names of several cameras, separated by blanks. Each has its own topics, like ~/left/image and "
        "~/left/detections; empty: one camera, ~/image.",
        live=False,
    ),
    Spec(
        "image_transport",
        RAW,
        "raw: sensor_msgs/Image on ~/image; compressed: sensor_msgs/CompressedImage on ~/image/compressed.",
        live=False,
        choices=(RAW, COMPRESSED),
    ),
    Spec("max_image_pixels", MAX_PIXELS, "Largest accepted image, in pixels.", 1, MAX_PIXELS),
    Spec(
        "accept_tiff",
        False,
        "Take compressed images in TIFF too. Its library writes a line of its own to stderr for each broken one.",
    ),
    Spec("use_depth", False, "Subscribe to ~/depth and ~/camera_info, and publish ~/detections_3d.", live=False),
    Spec("depth_tolerance", 0.05, "Longest time between an image and its depth image, in seconds.", 0.0, 10.0),
    Spec("depth_unit", 0.001, "Metres per unit of a 16UC1 depth image.", 1e-6, 1.0),
    Spec(
        "rectified",
        True,
        "Whether the images are rectified (then P of camera_info holds) or raw (then K, and D undistorts).",
    ),
)
OUTPUTS = (
    Spec("jpeg_quality", 80, "Quality of the compressed pictures.", 1, 100),
    Spec("marker_depth", 1.0, "Metres from the camera at which boxes without depth are drawn.", 0.01, 1000.0),
    Spec("tracking", False, "Follow the boxes between answers: ~/tracks at camera rate, and ids.", live=False),
    Spec("track_half_life", 2.0, "Seconds after which the score of a track that is not confirmed halves.", 0.01, 600.0),
    Spec("track_min_score", 0.05, "A track whose score has decayed below this ends.", 0.0, 1.0),
)
DIAGNOSTICS = (
    Spec("diagnostics_period", 1.0, "Seconds between two messages on /diagnostics.", 0.1, 60.0, live=False),
    Spec("image_timeout", 5.0, "Seconds without an image after which the node warns, and goals abort.", 0.1, 3600.0),
    Spec("stale_after", 5.0, "Age of an image, in seconds, from which its stamp is called stale; 0: any.", 0.0, 1e6),
    Spec("hang_after", 60.0, "Seconds of work on one frame after which it is called an error.", 0.1, 36000.0),
    Spec(
        "freeze_timeout",
        30.0,
        "Seconds in which nothing at all runs in the process after which it ends with exit code 1, so that what "
        "started it can start it again; 0: never, as under a debugger.",
        0.0,
        3600.0,
        live=False,
    ),
    Spec("warn_input_rate", 0.0, "Warn when fewer images come per second; 0: never.", 0.0, 1000.0),
    Spec("warn_answer_rate", 0.0, "Warn when fewer answers leave per second; 0: never.", 0.0, 1000.0),
    Spec(
        "warn_latency", 0.0, "Warn when the 95th percentile of latency is above these seconds; 0: never.", 0.0, 3600.0
    ),
    Spec("warn_unparseable", 0.5, "Warn when this share of the last responses gave no box.", 0.0, 1.0),
    Spec("warn_host_memory", 0.0, "Warn above this resident memory, in GB; 0: never.", 0.0, 1e5),
    Spec("warn_gpu_memory", 0.95, "Warn when this share of the GPU's memory is in use.", 0.0, 1.0),
)
NODE = (
    Spec("autostart", False, "Configure and activate by itself at start, without a lifecycle manager.", live=False),
)
GROUPS: dict[str, tuple[Spec, ...]] = {
    "Model": MODEL,
    "Asking": ASKING,
    "Inputs": INPUTS,
    "Outputs": OUTPUTS,
    "Diagnostics": DIAGNOSTICS,
    "Node": NODE,
}
SPECS: tuple[Spec, ...] = tuple(spec for group in GROUPS.values() for spec in group)
