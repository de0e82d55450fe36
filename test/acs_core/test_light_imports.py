"""Programs start without what they do not use. Nothing is timed: only what is imported is looked at."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from acs_core import light_imports
from acs_core.light_imports import load_lightly

HEAVY = ("torch._dynamo", "torch._inductor", "torch.distributed.tensor", "scipy")
SCRIPT = """
import json, sys
from acs_core.light_imports import load_lightly
def ground(image="docs/sample.png"):
    from acs_core import Grounder, SamplingConfig, read_image
    grounder = Grounder.from_pretrained({model!r}, device="cpu", selector="acs-free")
    return grounder.ground(read_image(image), "key", sampling=SamplingConfig(seed=1))
result = load_lightly(ground) if {light} else ground()
heavy = [name for name in {heavy} if name in sys.modules]
import scipy.optimize, torch, torch._dynamo
torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1))  # the real compiler is there when it is asked for
print(json.dumps([heavy, [r.text for r in result.responses], torch.distributed.is_available()]))
"""


def python(code, repo):
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=repo)
    return told.stdout.splitlines()


@pytest.mark.parametrize("model", ["tiny-internvl", "tiny-qwen2.5-vl"])
def test_a_model_loads_and_answers_without_what_it_does_not_use(repo, model):
    light, plain = (
        json.loads(python(SCRIPT.format(model=model, light=light, heavy=HEAVY), repo)[-1]) for light in (True, False)
    )
    assert light[0] == [] and set(plain[0]) >= {"torch._dynamo", "scipy"}
    assert light[1:] == plain[1:] and light[1]


def test_what_another_release_needs_is_imported_after_all(monkeypatch):
    monkeypatch.setattr(light_imports, "_say_no", lambda: None)
    for name in ("torch._dynamo", light_imports._WRAPPED):
        monkeypatch.delitem(sys.modules, name, raising=False)
    asked = []

    def load():
        asked.append("torch._dynamo" in sys.modules)
        return sys.modules["torch._dynamo"].optimize if asked[-1] else "everything"

    assert load_lightly(load) == "everything" and asked == [True, False]
    monkeypatch.setitem(sys.modules, "torch._dynamo", SimpleNamespace(optimize="the real one"))
    assert load_lightly(load) == "the real one"


@pytest.mark.parametrize("command", ["acs_bench", "acs_ground", "acs_load", "acs_soak", "acs_train", "acs_replay"])
def test_help_imports_neither_torch_nor_transformers(repo, command):
    code = (
        f"import sys, acs_ros.commands as c; sys.argv = ['{command}', '--help']\n"
        f"try: c.{command}()\n"
        "except SystemExit: pass\n"
        "finally: print([m for m in ('torch', 'transformers', 'scipy', 'matplotlib') if m in sys.modules])"
    )
    assert python(code, repo)[-1] == "[]"
