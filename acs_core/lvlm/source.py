"""A model before its weights are read: what ``config.json`` says about it, and the commit that all its files are of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from acs_core.artifacts.built import BuiltFiles
from acs_core.lvlm.base import Family


@dataclass(frozen=True)
class ModelSource:
    """A model folder or hub repository whose ``config.json`` was read and found usable; see
    :func:`acs_core.lvlm.open_model`.

    It has the properties of :class:`acs_core.artifacts.identity.ModelInfo`, so that head files, regressors and
    calibrations can be checked against the model before its weights are downloaded.

    Attributes:
        given_revision: commit of the repository that was named to :func:`acs_core.lvlm.open_model`, of a model or of
            files built for one; with it the name means the same files again. None for a folder.
        name: folder or hub id of the model itself.
        revision: commit of the model, which all its files are read at; None for a folder.
        adapter: the family's part of the model.
        config: the configuration, as an object of transformers.
        device: torch device that the weights will be loaded to.
        built: the files of `acs-train build` that were named; None if a model was.
    """

    given_revision: str | None
    name: str
    revision: str | None
    adapter: Family
    config: Any
    device: torch.device
    built: BuiltFiles | None = None

    @property
    def is_folder(self) -> bool:
        """Whether the model is a folder, and not a repository of the hub."""
        return self.revision is None and Path(self.name).is_dir()

    @property
    def family(self) -> str:
        """Name of the family, for example ``internvl``."""
        return self.adapter.name

    @property
    def num_layers(self) -> int:
        """Number of layers L of the language model."""
        return self.config.text_config.num_hidden_layers

    @property
    def num_heads(self) -> int:
        """Number of query heads K per layer."""
        return self.config.text_config.num_attention_heads

    @property
    def hidden_size(self) -> int:
        """Width of the language model's hidden states."""
        return self.config.text_config.hidden_size
