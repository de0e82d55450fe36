"""Model card of a built folder: its files, their origin, their quality and their limits."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from acs_core.artifacts.json_io import read_json
from acs_core.plain_text import one_line
from acs_core.selection.attention_in_box import BOX_LAYERS
from training.fitting.artifacts import ANALYSIS, CALIBRATION, FIT

HEADS_TOO = ", a head file (acs-free, acs-fusion)"
BOX_LAYERS_TOO = ", box layers (attention-in-box)"
NO_HEADS = "There is no head file: the collection had too few good or low boxes to choose heads."


def model_card(out: Path, model: str, made_by: str, command: str, manifest: dict[str, Any]) -> str:
    """Return the text of the model card, from the JSON files that the steps wrote into ``out``."""
    fit, calibration = (read_json(out / name, nan=True) for name in (FIT, CALIBRATION))
    heads = _heads(read_json(out / ANALYSIS, nan=True)) if (out / ANALYSIS).is_file() else []
    box_layers = BOX_LAYERS_TOO if (out / BOX_LAYERS.file_name).is_file() else ""
    identity, code = manifest["model"], one_line(command).replace("`", "'")
    lines = [
        f"# ACS files for {_plain(model)}",
        "",
        f"A regressor (acs-learned), one that reads attention in the box (acs-learned-box), a joint model "
        f"(acs-joint){HEADS_TOO if heads else ''}{box_layers} and their",
        "calibrations, for attention-based candidate selection with this model and no other.",
        "",
        "```python",
        "from acs_core.grounder import Grounder",
        "",
        f'grounder = Grounder.from_pretrained("{out.name}", selector="acs-learned")',
        "```",
        "",
        "## Made from",
        "",
        f"- model: {_plain(identity['model'])}, revision {_plain(identity['revision'] or 'a local folder')}, weights "
        f"{identity['weights'] or 'not fingerprinted'}, {identity['num_layers']} layers of {identity['num_heads']} "
        f"heads, {manifest['dtype']}",
        f"- {_plain(made_by)}",
        *(
            f"- {name}: {_plain(manifest[name])}"
            for name in ("max_image_tokens", "coordinate_frame")
            if name in manifest
        ),
        f"- versions: {_plain(', '.join(f'{k} {v}' for k, v in manifest['versions'].items()))}",
        f"- command: `{code}`",
        "",
        "## The regressor",
        "",
        f"{fit['candidates']['train']} candidates to train on, epoch {fit['best_epoch']} of {fit['epochs']} kept.",
        "",
        *_agreements(fit["agreement"]),
        "",
        "## The box regressor",
        "",
        "It reads attention in and around the own box of a candidate; fitted to the same images.",
        "",
        *_agreements(fit["box"]["agreement"] + fit["box"]["ablations"][1:]),
        "",
        "## The joint model",
        "",
        "Boosted trees that read a box, its agreement with the other responses, and its attention; fitted to the same",
        "images.",
        "",
        *_agreements(fit["joint"]["agreement"]),
        "",
        "## The heads",
        "",
        *(heads or [NO_HEADS]),
        "",
        "## The scores",
        "",
        "Measured by curves fitted on other images. Every pair shows what is asked for: a score says how good a box is",
        "*if the object is there*.",
        "",
        "| selector | answers | right (IoU >= 0.5) | expected calibration error | error of the expected IoU |",
        "|---|---|---|---|---|",
        *(
            f"| {_plain(name)} | {c['answered']} | {c['right']:.1%} | {c['expected_calibration_error']:.3f} | "
            f"{c['expected_iou_error']:.3f} |"
            for name, c in calibration.items()
        ),
        "",
        "| selector | precision with 95 % confidence | min_score | measured precision | answers kept |",
        "|---|---|---|---|---|",
        *(
            f"| {_plain(name)} | {p['wanted']:.0%} | {p['min_score']:.2f} | {p['precision']:.1%} | "
            f"{p['answers']}, {p['kept']:.0%} |"
            for name, c in calibration.items()
            for p in c["working_points"]
        ),
        "",
        "Pictures of all this are in `figures/`.",
        "",
    ]
    return "\n".join(lines)


def _heads(analysis: dict[str, Any]) -> list[str]:
    return [
        f"Layers, the most important first: {', '.join(map(str, analysis['layer_ranking']))}. Critical: "
        f"{', '.join(map(str, sorted(analysis['critical_layers'])))}. Layers and heads count from 0.",
        "",
        "| coordinate | layer.head | entropy gap, nats (95 % interval) | chosen in bootstrap draws |",
        "|---|---|---|---|",
        *(
            f"| {_plain(name)} | {h['layer']}.{h['head']} | {h['entropy_gap']:.2f} ({h['interval'][0]:.2f} to "
            f"{h['interval'][1]:.2f}) | {h['chosen_share']:.0%} |"
            for name, heads in analysis["best_heads"]["critical"].items()
            for h in heads
        ),
    ]


def _plain(text: object) -> str:
    """Escape ``text`` for Markdown: no markup, HTML or table cells."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", one_line(str(text)))


def _agreements(rows: list[dict[str, Any]]) -> list[str]:
    return [
        "| images | tau | pairs | candidates | MAE | Pearson r | "
        "mutual information, nats (bound of section 4.2 / estimate by neighbours) |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {_plain(r['where'])} | {r['temperature']} | {_plain(r['kind'])} | "
            f"{r['count']} | {r['mae']:.3f} | {r['pearson']:.3f} | "
            f"{_bound(r['information'])} / {r['information_knn']:.2f} |"
            for r in rows
        ),
    ]


def _bound(information: float) -> str:
    """Return the lower bound in words; "none" where it is 0, as the mutual information is never negative."""
    return f"at least {information:.2f}" if information > 0 else "none"
