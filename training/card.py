"""The model card of a built folder: what is in it, how it was made, how good it is, and for what it is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from training.made_files import ANALYSIS, CALIBRATION, FIT


def write_card(out: Path, model: str, made_by: str, command: str, manifest: dict[str, Any]) -> Path:
    """Writes ``README.md`` from the JSON files that the steps left in ``out``."""
    fit, analysis, calibration = (json.loads((out / name).read_text()) for name in (FIT, ANALYSIS, CALIBRATION))
    identity = manifest["model"]
    lines = [
        f"# ACS files for {model}",
        "",
        "A regressor (acs-learned), a joint quality (acs-joint), a head file (acs-free, acs-fusion) and their",
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
        f"- model: {identity['model']}, revision {identity['revision'] or 'a local folder'}, weights "
        f"{identity['weights'] or 'not fingerprinted'}, {identity['num_layers']} layers of {identity['num_heads']} "
        f"heads, {manifest['dtype']}",
        f"- {made_by}",
        f"- versions: {', '.join(f'{k} {v}' for k, v in manifest['versions'].items())}",
        f"- command: `{command}`",
        "",
        "## The regressor",
        "",
        f"{fit['candidates']['train']} candidates to train on, epoch {fit['best_epoch']} of {fit['epochs']} kept.",
        "",
        *_agreements(fit["agreement"]),
        "",
        "## The joint quality",
        "",
        "Boosted trees that read a box, its agreement with the other responses, and its attention; fitted to the same",
        "images.",
        "",
        *_agreements(fit["joint"]["agreement"]),
        "",
        "## The heads",
        "",
        f"Layers, the most important first: {', '.join(map(str, analysis['layer_ranking']))}. Critical: "
        f"{', '.join(map(str, sorted(analysis['critical_layers'])))}. Layers and heads count from 0.",
        "",
        "| coordinate | layer.head | entropy gap, nats (95 % interval) | chosen in bootstrap draws |",
        "|---|---|---|---|",
        *(
            f"| {name} | {h['layer']}.{h['head']} | {h['entropy_gap']:.2f} ({h['interval'][0]:.2f} to "
            f"{h['interval'][1]:.2f}) | {h['chosen_share']:.0%} |"
            for name, heads in analysis["best_heads"]["critical"].items()
            for h in heads
        ),
        "",
        "## The scores",
        "",
        "Measured by curves fitted on other images. Every pair shows what is asked for: a score says how good a box is",
        "*if the object is there*.",
        "",
        "| selector | answers | right (IoU >= 0.5) | expected calibration error | error of the expected IoU |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {c['answered']} | {c['right']:.1%} | {c['expected_calibration_error']:.3f} | "
            f"{c['expected_iou_error']:.3f} |"
            for name, c in calibration.items()
        ),
        "",
        "| selector | wanted precision | min_score | precision | answers kept |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {p['wanted']:.0%} | {p['min_score']:.2f} | {p['precision']:.1%} | {p['kept']:.0%} |"
            for name, c in calibration.items()
            for p in c["working_points"]
        ),
        "",
        "Pictures of all this are in `figures/`.",
        "",
    ]
    file = out / "README.md"
    file.write_text("\n".join(lines))
    return file


def _agreements(rows: list[dict[str, Any]]) -> list[str]:
    return [
        "| images | tau | pairs | candidates | MAE | Pearson r | information, nats (section 4.2 / neighbours) |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {r['where']} | {r['temperature']} | {r['kind']} | {r['count']} | {r['mae']:.3f} | {r['pearson']:.3f} | "
            f"{r['information']:.2f} / {r['information_knn']:.2f} |"
            for r in rows
        ),
    ]
