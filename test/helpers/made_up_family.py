"""A family that acs does not know: the model that ships as tiny-internvl, under another architecture's name."""

import json
import math
import shutil

import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from acs_core.artifacts.registry import ASSETS
from acs_core.lvlm.base import Family, Layout
from acs_core.lvlm.internvl import InternVLProcessor

WEIGHTS = ASSETS / "tiny-internvl"
OWN = ("heads.json", "regressor*.safetensors", "joint.safetensors", "calibration-*", "README.md", "figures")


class MadeUpConfig(transformers.InternVLConfig):
    model_type = "made_up"


class MadeUpForConditionalGeneration(transformers.InternVLForConditionalGeneration):
    config_class = MadeUpConfig


class MadeUpFamily(Family):
    name = "made_up"
    processor_class = InternVLProcessor
    map_size = (4, 4)

    def layout(self, hf_model, input_ids, vision):
        (places,) = torch.where(input_ids[0] == hf_model.config.image_token_id)
        side, stop = math.isqrt(hf_model.config.image_seq_length), int(places[-1]) + 1
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        return Layout(positions, (stop - side**2, stop), (side, side), (1000.0, 1000.0))


def save_model(folder):
    """The weights and the processor without any file of acs, as a folder of the made-up architecture."""
    shutil.copytree(WEIGHTS, folder, ignore=shutil.ignore_patterns(*OWN))
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": MadeUpConfig.model_type, "architectures": [MadeUpForConditionalGeneration.__name__]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def make_known_to_transformers(monkeypatch):
    """What a release of transformers brings with a new architecture; undone with ``monkeypatch``."""
    models = transformers.AutoModelForImageTextToText._model_mapping
    monkeypatch.setitem(CONFIG_MAPPING._extra_content, MadeUpConfig.model_type, MadeUpConfig)
    monkeypatch.setitem(models._extra_content, MadeUpConfig, MadeUpForConditionalGeneration)
