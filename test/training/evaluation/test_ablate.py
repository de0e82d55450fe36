import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from acs_core.artifacts.heads import Head, HeadFile
from acs_core.artifacts.identity import ModelIdentity
from acs_core.evaluation.table import to_json
from training.cli.main import app
from training.errors import DataError
from training.evaluation.ablate import StepCollections, ablate, ranking


@pytest.fixture
def critical(identity, telling_head):
    """A head file whose localization-critical layer is that of the head that knows."""
    return HeadFile(identity, "heads", ((Head(*telling_head),),) * 4, (telling_head[0],))


def test_every_choice_is_a_row(collection, fresh_collection, critical):
    steps = [
        StepCollections("emitting", collection, fresh_collection),
        StepCollections("consuming", collection, fresh_collection),
    ]
    (table,) = to_json([ablate(steps, critical, (1, 2))])
    rows = [(r["step"], r["layers"], r["heads"]) for r in table["rows"]]
    assert rows[0] == ("first valid", "", 0)
    assert rows[1:] == [(s, w, n) for s in ("emitting", "consuming") for w in ("critical", "all") for n in (1, 2)]


def test_the_head_that_knows_is_found_and_worth_something(collection, fresh_collection, critical):
    (table,) = to_json([ablate([StepCollections("emitting", collection, fresh_collection)], critical, (1,))])
    first, within_critical, anywhere = table["rows"]
    # one head knows: it is found in its own layer and among all, and picks better than the order of answers
    assert within_critical == anywhere | {"layers": "critical"}
    assert within_critical["acs-free: Acc@0.5"] > first["acs-free: Acc@0.5"] + 20
    assert within_critical["r: within"] > 0.8


def test_a_head_that_knows_nothing_ranks_nothing(collection, identity, telling_head):
    knows = ranking(collection, HeadFile(identity, "heads", ((Head(*telling_head),),) * 4))
    knows_not = ranking(collection, HeadFile(identity, "heads", ((Head(0, 0),),) * 4))
    assert knows.within > 0.8 and knows.across > 0.8
    assert abs(knows_not.within) < 0.3 and abs(knows_not.across) < 0.3


def test_another_models_heads_are_refused(collection, critical):
    other = replace(critical, identity=ModelIdentity("other", "internvl", 3, 2))
    with pytest.raises(DataError, match="the collection is of made-up, the head file of other"):
        ablate([StepCollections("emitting", collection, collection)], other)


def test_a_collection_of_the_other_step_is_wrong_usage(collection_folder, critical, tmp_path):
    critical.save(tmp_path / "heads.json")
    store = str(collection_folder)
    given = ["ablate", "--heads", str(tmp_path / "heads.json"), "--emitting", store, store, "--consuming", store, store]
    found = CliRunner().invoke(app, given)
    assert found.exit_code == 2
    assert "holds attention of the emitting step" in " ".join(found.output.replace("│", " ").split())


def test_the_command_prints_and_writes_the_table(collection_folder, critical, tmp_path):
    critical.save(tmp_path / "heads.json")
    store, file = str(collection_folder), tmp_path / "ablation.json"
    given = ["ablate", "--heads", str(tmp_path / "heads.json"), "--emitting", store, store, "--count", "1"]
    found = CliRunner().invoke(app, [*given, "--json", str(file)])
    assert found.exit_code == 0, found.output
    assert "acs-fusion" in found.output
    ablation, follows = json.loads(file.read_text())["tables"]
    assert [r["heads"] for r in ablation["rows"]] == [0, 1, 1]
    assert next(r["low entropy with"] for r in follows["rows"]) == "IoU" and len(follows["rows"]) == 5
