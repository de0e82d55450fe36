"""Registry of selectors by name. A new selector is one file in this package and one entry of ``SELECTORS``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from acs_core.arguments import described
from acs_core.artifacts.identity import ModelInfo
from acs_core.artifacts.registry import asset_for
from acs_core.errors import SelectorError
from acs_core.plain_text import nearest
from acs_core.selection import (
    acs_free,
    acs_fusion,
    acs_fusion_box,
    acs_joint,
    acs_learned,
    acs_learned_box,
    attention_in_box,
    baselines,
    box_votes,
    token_baselines,
)
from acs_core.selection.acs_free import AcsFree
from acs_core.selection.acs_fusion import AcsFusion
from acs_core.selection.acs_fusion_box import AcsFusionBox
from acs_core.selection.acs_joint import AcsJoint
from acs_core.selection.acs_learned import AcsLearned
from acs_core.selection.acs_learned_box import AcsLearnedBox
from acs_core.selection.attention_in_box import AttentionInBox
from acs_core.selection.base import ArtifactKind, BoxFusingSelector, ModelInfoWithDevice, Selector, SelectorSpec
from acs_core.selection.baselines import FirstResponse, SmallestBox, VerbalConfidence
from acs_core.selection.box_votes import Consensus, GridVote, LargestCluster, MajorityVote, MeanBox, MedianVote, Medoid
from acs_core.selection.token_baselines import TokenUncertainty

__all__ = [
    "AUTO",
    "AUTO_ORDER",
    "SELECTORS",
    "AcsFree",
    "AcsFusion",
    "AcsFusionBox",
    "AcsJoint",
    "AcsLearned",
    "AcsLearnedBox",
    "AttentionInBox",
    "BoxFusingSelector",
    "Consensus",
    "FirstResponse",
    "GridVote",
    "LargestCluster",
    "MajorityVote",
    "MeanBox",
    "MedianVote",
    "Medoid",
    "ModelInfoWithDevice",
    "Selector",
    "SmallestBox",
    "TokenUncertainty",
    "VerbalConfidence",
    "artifact_kinds",
    "check_files",
    "check_name",
    "check_read",
    "default_selector",
    "fuses_boxes",
    "is_baseline",
    "is_learned",
    "kinds_of",
    "make_selector",
    "selector_names",
    "spec_of",
]

AUTO = "auto"  # in the place of a selector's name: the one of default_selector
SELECTORS: dict[str, SelectorSpec] = {
    spec.name: spec
    for spec in (
        acs_free.SPEC,
        acs_learned.SPEC,
        acs_fusion.SPEC,
        acs_fusion_box.SPEC,
        acs_joint.SPEC,
        attention_in_box.SPEC,
        acs_learned_box.SPEC,
        *baselines.SPECS,
        *token_baselines.SPECS,
        *box_votes.SPECS,
    )
}


# Where the files of several are known, the first is the best on the embedded models (docs/results.md).
AUTO_ORDER = (acs_fusion_box.SPEC, acs_free.SPEC)


def selector_names() -> tuple[str, ...]:
    """Return the names of all selectors."""
    return tuple(SELECTORS)


def spec_of(name: str) -> SelectorSpec:
    """Return the spec of the selector ``name``.

    Raises:
        SelectorError, TypeError: see :func:`check_name`.
    """
    check_name(name)
    return SELECTORS[name]


def artifact_kinds() -> tuple[ArtifactKind, ...]:
    """Return all kinds of file that selectors read, each once."""
    return tuple(dict.fromkeys(kind for spec in SELECTORS.values() for kind in spec.reads))


def fuses_boxes(name: str) -> bool:
    """Whether the selector ``name`` publishes boxes that are not those of a candidate; False for an unknown name."""
    return name in SELECTORS and SELECTORS[name].fuses_boxes


def is_baseline(name: str) -> bool:
    """Whether the selector ``name`` is a baseline; False for an unknown name."""
    return name in SELECTORS and SELECTORS[name].baseline


def is_learned(name: str) -> bool:
    """Whether the selector ``name`` is fitted to true boxes; False for an unknown name."""
    return name in SELECTORS and SELECTORS[name].learned


def check_name(name: str, auto: bool = False) -> None:
    """Check that there is a selector of this name; with ``auto``, the name may also be :data:`AUTO`.

    Raises:
        SelectorError: there is none; the message has the nearest name, if one is near, and lists the known names.
        TypeError: the name is not a string.
    """
    known = ", ".join((*SELECTORS, AUTO) if auto else SELECTORS)
    if not isinstance(name, str):
        raise TypeError(f"selector must be one of {known}, got {described(name)}")
    if name not in SELECTORS and not (auto and name == AUTO):
        near = nearest(name.lower(), SELECTORS)
        hint = f" (did you mean {near}?)" if near else ""
        raise SelectorError(f"unknown selector {described(name)}{hint}: choose one of {known}")


def default_selector(lvlm: ModelInfo, files: Mapping[str, Any], given: Collection[str] = ()) -> str:
    """Return the selector that :data:`AUTO` stands for: the first of ``AUTO_ORDER`` whose files are in ``files`` or
    known for the model; consensus, which needs no file, if there is none.

    Args:
        lvlm: the model.
        files: files by the name of their kind; None where there is none.
        given: names of kinds that the user gave: selectors that read one of them come first, then those that read
            another of ``files``.

    Raises:
        ArtifactError, ModelError: a shipped file is damaged.
    """
    at_hand = {name for name, file in files.items() if file is not None}
    in_order = sorted(  # what the user gave, then what was built for the model, then what ships
        AUTO_ORDER, key=lambda spec: [not any(kind.name in names for kind in spec.reads) for names in (given, at_hand)]
    )
    for spec in in_order:
        if all(kind.name in at_hand or asset_for(lvlm, kind.file_name) is not None for kind in spec.reads):
            return spec.name
    return Consensus.name


def kinds_of(name: str) -> tuple[ArtifactKind, ...]:
    """Return the kinds of file that the selector ``name``, or the one that :data:`AUTO` stands for, may read.

    Raises:
        SelectorError, TypeError: see :func:`check_name`.
    """
    check_name(name, auto=True)
    if name == AUTO:
        return tuple(dict.fromkeys(kind for spec in AUTO_ORDER for kind in spec.reads))
    return SELECTORS[name].reads


def check_files(name: str, files: Mapping[str, Any]) -> None:
    """Check that the keywords of ``files`` are kinds of file that selectors read. Kinds that the selector ``name`` does
    not read are accepted; None stands for a file that is not given.

    Raises:
        SelectorError, TypeError: see :func:`check_name`; TypeError also for a kind of file that no selector reads.
        ArtifactError: a file is given by its keyword of an earlier version.
    """
    reads = kinds_of(name)
    known = [kind.name for kind in artifact_kinds()]
    for given in files:
        if given not in known:
            raise TypeError(f"no selector reads a file of the kind {described(given)}: use {', '.join(known)}")
    for kind in reads:
        former = kind.former_option
        if former and files.get(former) is not None and files.get(kind.name) is None:
            raise kind.error(
                f"{name} takes its file as {kind.name}=... (command line: --{kind.name.replace('_', '-')} FILE; "
                f"parameter of the node: {kind.name}), no longer as {former}"
            )


def check_read(name: str, files: Mapping[str, Any]) -> None:
    """Check that the selector ``name`` reads every kind of file that is given; None stands for one that is not.

    Raises:
        SelectorError: it does not read one of them; the message names the selectors that do.
    """
    reads = kinds_of(name)
    former = {kind.former_option for kind in reads}  # refused by check_files, with what to give instead
    for kind in artifact_kinds():
        if files.get(kind.name) is not None and kind not in reads and kind.name not in former:
            readers = ", ".join(spec.name for spec in SELECTORS.values() if kind in spec.reads)
            option = f"--{kind.name.replace('_', '-')}"
            raise SelectorError(f"the selector {name} does not read {option}: leave it out, or choose {readers}")


def make_selector(name: str, lvlm: ModelInfoWithDevice, **files: Any) -> Selector:
    """Create the selector ``name`` for ``lvlm``.

    Args:
        name: one of :func:`selector_names`.
        lvlm: the loaded model.
        files: paths by the kind of file (``heads``, ``regressor``, ``joint_model``), ``heads`` also as a
            :class:`acs_core.artifacts.heads.HeadFile`. Files that are not given, or None, are taken from the model's
            folder or the shipped files.

    Raises:
        SelectorError: unknown name.
        ArtifactError: a required file is missing, damaged, of another model, or of another kind; HeadFileError,
            RegressorError or JointError, by the kind of file.
        TypeError: a kind of file that no selector reads.
    """
    spec = spec_of(name)
    check_files(name, files)
    return spec.make(*(_artifact(kind, lvlm, files.get(kind.name)) for kind in spec.reads))


def _artifact(kind: ArtifactKind, lvlm: ModelInfoWithDevice, given: Any) -> Any:
    source = given if given is not None else asset_for(lvlm, kind.file_name)
    if source is None:
        missing, other = kind.missing.format(model=lvlm.name), default_selector(lvlm, {})
        raise kind.error(f"{missing}; the default selector for this model, {other}, works without it")
    return kind.load(source, lvlm)
