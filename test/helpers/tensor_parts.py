"""A regressor and a joint model of the same small model, and a way to spoil their files."""

import json

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from acs_core.artifacts.identity import ModelIdentity
from acs_core.artifacts.trees import Trees
from acs_core.selection.joint_features import feature_names
from acs_core.selection.joint_model import JointIoUModel
from acs_core.selection.regressor import AttentionIoURegressor

IDENTITY = ModelIdentity("some/model", "internvl", 2, 3, "abc")
NAMES = feature_names(2)


class FakeModel:
    name, family, revision, num_layers, num_heads = "some/model", "internvl", None, 2, 3


def maps(batch=2, layers=2, heads=3, h=8, w=8, seed=0):
    """Attention maps (batch, 4, layers, heads, h, w), each a share of one."""
    rows = torch.rand(batch, 4, layers, heads, h * w, generator=torch.Generator().manual_seed(seed))
    return (rows / rows.sum(-1, keepdim=True)).reshape(batch, 4, layers, heads, h, w)


def trained(transform="cells"):
    """A regressor whose normalisation statistics are not the initial ones."""
    torch.manual_seed(0)
    model = AttentionIoURegressor(2, 3, input_transform=transform)
    model.train()
    for seed in range(3):
        model(maps(4, seed=seed))
    return model.eval()


def step_quality(name="mean IoU", threshold=0.4, low=-0.5, high=0.6, base=0.3):
    """Two leaves: ``base + low`` where the feature is at most ``threshold``, else ``base + high``."""
    trees = Trees(
        feature=np.array([[NAMES.index(name), 0, 0]], np.int32),
        threshold=np.array([[threshold, 0.0, 0.0]]),
        child=np.array([[[1, 2], [1, 1], [2, 2]]], np.int32),
        value=np.array([[0.0, low, high]]),
        base=base,
        width=len(NAMES),
    )
    return JointIoUModel(trees, IDENTITY, (8, 6), "by a test")


def rewrite(path, change=None, edit=None):
    """Writes a file again with changed metadata fields, or with numpy arrays that ``edit`` changed."""
    with safe_open(str(path), framework="np") as file:
        ((key, text),) = file.metadata().items()
    arrays = load_file(str(path))
    if edit:
        edit(arrays)
    save_file(arrays, str(path), metadata={key: json.dumps(json.loads(text) | (change or {}))})
