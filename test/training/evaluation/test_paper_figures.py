"""The paper's figures: what is on them, that no text lies on another, and that equal figures are equal files."""

from dataclasses import replace

import numpy as np
import pytest
from eval_parts import evaluation
from figure_parts import overlapping_texts

from acs_core.errors import ImageError
from acs_core.evaluation.cases import choose_cases, named_cases
from acs_core.evaluation.records import EntropyProfile
from acs_core.evaluation.tables import assess
from acs_core.geometry import Box
from training import plotting
from training.evaluation.attention_figures import SeenPicture, critical_figure, layers_figure
from training.evaluation.paper_figures import draw_all, entropy_figure, sheets, size_figure

DEEP = 36  # layers of InternVL-3.5-8B
SINGLE = evaluation(24, several=False)
ASSESSED = assess(replace(SINGLE, groups=(SINGLE.groups[0], replace(SINGLE.groups[0], name="large"))), draws=100)


def read(image):
    if image.endswith("03.png"):
        raise ImageError(f"{image} is missing")
    return np.full((48, 64, 3), 120, np.uint8)


def deep():
    profiles = [
        EntropyProfile(c, g, 1234, tuple(5 - 0.1 * k + shift for k in range(DEEP)))
        for c in ("x1", "y1", "x2", "y2")
        for g, shift in (("IoU > 0.7", -0.4), ("0 < IoU ≤ 0.3", 0.1), ("IoU = 0", 0.3))
    ]
    layers = (17, 18, 19, 20, 21, 22, 23, 24, 26, 35)
    return replace(
        SINGLE, title="OpenGVLab/InternVL3_5-8B-HF on val2017", entropy=tuple(profiles), critical_layers=layers
    )


def seen(phrase="traffic light"):
    rng = np.random.default_rng(0)
    return SeenPicture(np.full((48, 64, 3), 120, np.uint8), phrase, Box(10, 10, 20, 20), rng.random((4, DEEP, 6, 8)))


CASES = choose_cases(ASSESSED.measured[0], 13).shown


@pytest.mark.parametrize(
    "figure",
    [
        size_figure(ASSESSED.measured, "tiny on made-up"),
        entropy_figure(deep(), together=True),
        entropy_figure(deep(), together=False),
        *sheets(CASES, read, "tiny on made-up"),
        critical_figure([seen(), seen("key")], deep().critical_layers, "InternVL3_5-8B-HF: critical layers"),
        layers_figure(seen(), 2, deep().critical_layers, "InternVL3_5-8B-HF"),
    ],
)
def test_no_text_lies_on_another_or_leaves_the_figure(figure):
    assert overlapping_texts(figure) == []


def test_critical_layers_are_shaded():
    def shaded(layers):
        (axes,) = entropy_figure(replace(deep(), critical_layers=layers), together=True).axes
        return sorted((p.get_x(), p.get_x() + p.get_width()) for p in axes.patches)

    assert shaded(()) == []
    assert shaded((26, 17, 18, 19)) == [(16.5, 19.5), (25.5, 26.5)]


def test_the_line_of_all_coordinates_is_their_mean():
    made = replace(SINGLE, entropy=tuple(replace(p, by_layer=(float(k),)) for k, p in enumerate(SINGLE.entropy)))
    (axes,) = entropy_figure(made, together=True).axes
    assert [line.get_ydata().tolist() for line in axes.lines] == [
        [4.5],
        [5.5],
        [6.5],
    ]  # 0, 3, 6, 9 are of one IoU group


def test_grids_share_one_scale_and_name_critical_layers_in_bold():
    figure = layers_figure(seen(), 0, (3,), "m")
    maps = [image for axes in figure.axes for image in axes.images if image.get_array().ndim == 2]
    assert (
        len(maps) == DEEP and len({id(m.norm) for m in maps}) == 1 and {m.get_cmap().name for m in maps} == {"inferno"}
    )
    bold = [a.get_title() for a in figure.axes if a.title.get_fontweight() == "bold"]
    assert bold == ["layer 3"]


def test_all_figures_are_written_in_every_format_and_the_same_again(tmp_path, monkeypatch):
    monkeypatch.setattr(plotting, "DPI", 30)  # faster
    keys = (ASSESSED.measured[0].group.questions[3].key, "no such question")
    named = named_cases(ASSESSED.measured[0], keys)
    assert [case.question.key for case in named] == [keys[0]] and len(named[0].panels) == 2
    told = draw_all(ASSESSED, named, read, tmp_path, "1-")
    names = ["figure-01-object-size", "figure-04-entropy", "figure-10-entropy", "figure-05-examples-1"]
    assert told == [f"1-{name}" for name in names]
    files = sorted(f.name for f in tmp_path.iterdir())
    assert files == sorted(f"1-{name}.{kind}" for name in names for kind in plotting.FORMATS)
    for file in plotting.save(entropy_figure(SINGLE, together=True), tmp_path / "again"):
        assert file.read_bytes() == (tmp_path / f"1-figure-04-entropy{file.suffix}").read_bytes()


def test_figures_without_data_say_why(tmp_path):
    bare = assess(replace(SINGLE, entropy=()), draws=100)
    told = draw_all(bare, (), read, tmp_path)
    assert [line.partition(": left out, ")[2] for line in told] == [
        "needs small and large objects",
        "the evaluation has no entropies",
        "the evaluation has no entropies",
    ]
    assert list(tmp_path.iterdir()) == []
