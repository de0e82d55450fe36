"""What is built for a model goes to a hub on this machine, over HTTP, and comes back from there."""

import json
import shutil

import pytest
from grounder_parts import IMAGE, save_complete
from typer.testing import CliRunner

from acs_core.artifacts.built import built_content
from acs_core.artifacts.heads import HeadFile
from acs_core.artifacts.identity import ModelIdentity
from acs_core.grounder import Grounder
from acs_core.lvlm import open_model
from acs_core.types import SamplingConfig
from training.cli import main
from training.errors import DataError
from training.fitting.push import hub_card, prepare, push

MODEL, FILES = "acs-test/random-internvl", "acs-test/acs-files"
OWN = ("heads.json", "regressor.safetensors", "calibration-acs-free.json", "calibration-acs-learned.json")
CARD = '# ACS files for it\n\ngrounder = Grounder.from_pretrained("files", selector="acs-learned")\n'


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    return save_complete(tmp_path_factory.mktemp("model") / "random-internvl")


@pytest.fixture
def commit(hub, complete):
    files = {p.name: p.read_bytes() for p in complete.iterdir() if p.name not in OWN}
    return hub.commit(MODEL, files)


@pytest.fixture
def files(complete, commit, tmp_path):
    """A folder as `acs-train build` leaves it."""
    folder = tmp_path / "files"
    (folder / "figures").mkdir(parents=True)
    for name in OWN:
        shutil.copy(complete / name, folder / name)
    (folder / "acs.json").write_text(json.dumps(built_content(MODEL, commit)))
    (folder / "README.md").write_text(CARD)
    (folder / "figures" / "predicted_iou.png").write_bytes(b"picture")
    for name in (".acs-files.json", "build.run.yaml", "notes.txt"):
        (folder / name).write_text("stays here")
    return folder


def run(*arguments):
    done = CliRunner().invoke(main.app, ["push", *map(str, arguments)])
    return done.exit_code, done.output


def prepared(folder, model=None):
    return prepare(folder, FILES, lambda name, revision: open_model(name, revision=revision), model)


def test_what_is_pushed_is_what_a_grounder_takes(hub, files, commit, tmp_path):
    code, said = run("--files", files, "--to", FILES, "--private", "--json", tmp_path / "pushed.json")
    assert code == 0, said
    pushed = hub.branches[FILES]["main"]
    assert json.loads((tmp_path / "pushed.json").read_text())["commit"] == pushed
    assert f'Grounder.from_pretrained("{FILES}", revision="{pushed}")' in said
    assert [repo["visibility"] for repo in hub.created] == ["private"]
    there = hub.newest(FILES)
    assert set(there) == {".gitattributes", "README.md", "acs.json", "figures/predicted_iou.png", *OWN}
    assert all(there[name] == (files / name).read_bytes() for name in OWN)
    assert json.loads(there["acs.json"])["revision"] == commit
    hub.commit(MODEL, {"config.json": b"{}"})  # the model goes on; the files name its commit
    grounder = Grounder.from_pretrained(FILES, selector="acs-learned", device="cpu")
    result = grounder.ground(IMAGE, "key", sampling=SamplingConfig(num_samples=1, max_new_tokens=2))
    assert (result.model, result.revision, grounder.lvlm.revision) == (FILES, pushed, commit)
    assert grounder.calibration is not None
    asked = {(c, f) for _, c, f in hub.served}
    assert {c for c, _ in asked} == {pushed, commit}
    assert (pushed, "figures/predicted_iou.png") not in asked and (pushed, "heads.json") not in asked


def test_the_card_names_the_repository_and_the_model(files):
    card = prepared(files).card
    head, _, body = card.partition("\n---\n")
    assert head.splitlines() == ["---", "library_name: acs", f"base_model: {MODEL}", *head.splitlines()[3:]]
    assert f'Grounder.from_pretrained("{FILES}", selector="acs-learned")' in body
    assert hub_card(card, FILES, None) == card  # metadata that is there stays


def test_a_plan_uploads_nothing(hub, files):
    code, said = run("--files", files, "--to", FILES, "--plan")
    assert (code, said.split()) == (0, sorted((*OWN, "README.md", "acs.json", "figures/predicted_iou.png")))
    assert FILES not in hub.commits


def test_a_second_push_takes_away_what_is_no_longer_built(hub, files):
    push(prepared(files), FILES)
    first = hub.branches[FILES]["main"]
    for name in ("regressor.safetensors", "calibration-acs-learned.json"):
        (files / name).unlink()
    second = push(prepared(files), FILES)
    assert second == hub.branches[FILES]["main"] != first
    assert "regressor.safetensors" in hub.commits[FILES][first]
    assert not {"regressor.safetensors", "calibration-acs-learned.json"} & set(hub.newest(FILES))


def test_repositories_of_something_else_stay(hub, files, commit):
    upload = prepared(files)
    for name, content in (("acs-test/data", {"data.csv": b"1"}), (MODEL, None)):
        if content:
            hub.commit(name, content)
        before = dict(hub.commits[name])
        with pytest.raises(DataError, match=rf"{name} holds .*, which `acs-train push` did not upload"):
            push(upload, name)
        assert hub.commits[name] == before


@pytest.mark.parametrize(
    "content",
    [
        {"README.md": b"---\nlicense: mit\n---\n# My project\n"},
        {"README.md": b"# My project\n"},
        {"heads.json": b"of another project"},
        {"README.md": b"", "acs.json": b'{"of": "another project"}'},
        {"acs.json": b"no JSON"},
    ],
)
def test_nothing_that_acs_did_not_upload_is_replaced(hub, files, content):
    upload = prepared(files)
    hub.commit("acs-test/own", {".gitattributes": b""} | content)
    with pytest.raises(DataError, match=r"acs-test/own holds .*, which `acs-train push` did not upload"):
        push(upload, "acs-test/own")
    assert len(hub.commits["acs-test/own"]) == 1


def test_a_file_that_somebody_added_to_an_upload_is_not_replaced(hub, files):
    (files / "regressor.safetensors").rename(files / "later")
    push(prepared(files), FILES)
    hub.commit(FILES, hub.newest(FILES) | {"regressor.safetensors": b"of somebody"})
    (files / "later").rename(files / "regressor.safetensors")
    with pytest.raises(DataError, match=r"holds regressor\.safetensors, which"):
        push(prepared(files), FILES)


@pytest.mark.parametrize("card", [b"", b"---\nlicense: mit\n---\n", b"---\r\nlicense: mit\r\n---\r\n\r\n"])
def test_the_files_of_an_empty_repository_are_no_obstacle(hub, files, card):
    hub.commit(FILES, {".gitattributes": b"", "LICENSE": b"MIT", "README.md": card})
    push(prepared(files), FILES)
    assert hub.newest(FILES)["LICENSE"] == b"MIT" and b"ACS files" in hub.newest(FILES)["README.md"]


def test_an_edited_card_stays(hub, files):
    push(prepared(files), FILES)
    (files / "README.md").write_text(f"{CARD}New\n")
    push(prepared(files), FILES)
    assert hub.newest(FILES)["README.md"].endswith(b"New\n")
    edited = hub.newest(FILES) | {"README.md": b"# Mine\n"}
    hub.commit(FILES, edited)
    for _ in range(2):
        code, said = run("--files", files, "--to", FILES)
        assert code == 0 and "README.md was edited on the hub and stays as it is" in said
        assert hub.newest(FILES)["README.md"] == b"# Mine\n"
    assert Grounder.from_pretrained(FILES, device="cpu").selector_name


def test_private_files_are_not_uploaded_to_a_public_repository(hub, files):
    hub.commit(FILES, {".gitattributes": b""})
    with pytest.raises(DataError, match="acs-files exists and is public: make it private"):
        push(prepared(files), FILES, private=True)
    assert set(hub.newest(FILES)) == {".gitattributes"}
    hub.private.add(FILES)
    assert run("--files", files, "--to", FILES, "--private")[0] == 0
    assert "heads.json" in hub.newest(FILES)


def test_a_change_during_the_upload_is_not_undone(hub, files):
    push(prepared(files), FILES)
    upload = prepared(files)

    def meanwhile(file):
        if file == "acs.json":
            hub.commit(FILES, hub.newest(FILES) | {"README.md": b"# Mine\n"})

    hub.after = meanwhile
    with pytest.raises(DataError, match=r"HTTP 412\): it was changed during the upload; push again"):
        push(upload, FILES)
    assert hub.newest(FILES)["README.md"] == b"# Mine\n"


@pytest.mark.parametrize(
    ("status", "message"), [(403, "log in with `hf"), (401, "log in with `hf"), (400, "try again")]
)
def test_a_refusal_of_the_hub_is_said(hub, files, status, message):
    hub.refuse, upload = status, prepared(files)
    with pytest.raises(DataError, match=rf"refuses the upload to {FILES} \(HTTP {status}\): {message}"):
        push(upload, FILES)


def test_nothing_is_pushed_offline(hub, files, monkeypatch):
    upload = prepared(files)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="HF_HUB_OFFLINE is set"):
        push(upload, FILES)


def change_heads(folder, **changes):
    file = folder / "heads.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "acs.json").unlink(), "has no acs.json"),
        (lambda f: [(f / name).unlink() for name in OWN], "holds none of heads.json"),
        (lambda f: (f / "README.md").unlink(), r"README\.md cannot be read"),
        (lambda f: (f / "acs.json").write_text(json.dumps(built_content(MODEL, None))), "of which commit is not known"),
        (lambda f: (f / "acs.json").write_text(json.dumps(built_content("/my/model", None))), "upload the model first"),
        (lambda f: change_heads(f, hidden_size=64), r"heads\.json does not fit: .* hidden states of 64 numbers"),
        (lambda f: change_heads(f, model="else/where"), r"heads\.json does not fit: it was made for else/where"),
        (lambda f: change_heads(f, model="elsewhere"), r"heads\.json does not fit: it was made for elsewhere"),
        (lambda f: change_heads(f, revision="0" * 40), rf"it was made for commit {'0' * 40}, the model is at"),
    ],
)
def test_what_others_could_not_use_is_not_uploaded(hub, files, change, message):
    change(files)
    with pytest.raises(DataError, match=message):
        prepared(files)
    assert FILES not in hub.commits


def test_files_for_a_folder_are_pushed_for_its_copy_on_the_hub(hub, files, commit):
    (files / "acs.json").write_text(json.dumps(built_content("/my/random-internvl", None)))
    pointer = json.loads(prepared(files, MODEL).pointer)
    assert (pointer["model"], pointer["revision"]) == (MODEL, commit)


def test_files_for_a_shipped_model_need_no_commit(hub, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    identity = ModelIdentity.of(open_model("tiny-internvl"))
    HeadFile.from_layers(identity, [1]).save(folder / "heads.json")
    (folder / "acs.json").write_text(json.dumps(built_content("tiny-internvl", None)))
    (folder / "README.md").write_text(CARD)
    pushed = push(prepared(folder), FILES)
    grounder = Grounder.from_pretrained(FILES, device="cpu")
    assert (grounder.selector_name, grounder.revision, grounder.lvlm.revision) == ("acs-free", pushed, None)


@pytest.mark.parametrize("option", ["--to", "--model"])
def test_a_name_that_is_no_hub_id_is_wrong_usage(files, option):
    given = {"--to": FILES, "--model": MODEL} | {option: "/somewhere"}
    code, said = run("--files", files, *(part for pair in given.items() for part in pair))
    assert code == 2 and option in said
