"""The source holds no call that runs what it reads: unpickling, evaluating, importing by a name that was read."""

import ast
from pathlib import Path

import pytest

ROOMS = ("acs_core", "acs_ros", "test/fuzz", "launch", "tools", "training")
# Modules none of whose functions may be called, but for those in HARMLESS.
FORBIDDEN_MODULES = (
    "pickle",
    "_pickle",
    "cloudpickle",
    "ray.cloudpickle",
    "dill",
    "joblib",
    "marshal",
    "shelve",
    "runpy",
)
FORBIDDEN = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "importlib.import_module",
    "importlib.reload",
    "os.system",
    "os.popen",
    "pandas.read_pickle",
    "torch.hub.load",
    "torch.jit.load",
    "torch.serialization.add_safe_globals",
    "yaml.full_load",
    "yaml.load",
    "yaml.unsafe_load",
}
HARMLESS = {"dump", "dumps", "Pickler"}  # these write
# What must stand in a call of that name, or with that argument.
ALWAYS = {"torch.load": ("weights_only", True), "ckpt_path": ("weights_only", True)}
NEVER = {
    "weights_only": (True,),
    "allow_pickle": (False,),
    "trust_remote_code": (False,),
    "shell": (False,),
    "use_safetensors": (True,),
}
ALLOWED = {
    # the results of our own workers, by the connection of the Ray cluster, which runs our code in any case
    ("training/collection/ray_pool.py", "pickle.loads"),
    # a target of this package, by the name of its room, for a process that the campaign starts
    ("test/fuzz/targets.py", "importlib.import_module"),
    # a ROS package's messages, by the type names in the graph of the node that the campaign itself starts
    ("test/fuzz/types.py", "importlib.import_module"),
    # the module of a command, by a name that stands in setup.py or in the command's own source
    ("acs_core/entry.py", "importlib.import_module"),
    # a room of its own, by the name that stands in the call, where Triton may be missing
    ("acs_core/generation/cuda_graph.py", "importlib.import_module"),
    # CTranslate2, which may not be installed, by names that stand in the call
    ("acs_core/bench/peers.py", "importlib.import_module"),
}


def calls_that_run(source: str) -> list[str]:
    """The forbidden calls in ``source``, by their full names."""
    tree = ast.parse(source)
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def full(node: ast.expr) -> str:
        if isinstance(node, ast.Attribute):
            before = full(node.value)
            return f"{before}.{node.attr}" if before else ""
        return names.get(node.id, node.id) if isinstance(node, ast.Name) else ""

    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Attribute, ast.Name)):  # also one that is handed on, not called here
            name = full(node)
            module, _, function = name.rpartition(".")
            if (name in FORBIDDEN and (module or (isinstance(node.ctx, ast.Load) and name not in names))) or (
                module in FORBIDDEN_MODULES and function not in HARMLESS
            ):
                found.append(name)
        if isinstance(node, ast.Call):
            given = {k.arg: k.value for k in node.keywords if k.arg}
            constants = {k: v.value for k, v in given.items() if isinstance(v, ast.Constant)}
            for trigger, (argument, value) in ALWAYS.items():
                if (full(node.func) == trigger or trigger in given) and constants.get(argument) is not value:
                    found.append(f"{full(node.func)} without {argument}={value}")
            for argument, values in NEVER.items():
                if argument in given and constants.get(argument) not in values:
                    found.append(f"{full(node.func)} with another {argument} than {values[0]}")
    return found


def source_files(repo: Path) -> list[Path]:
    found = (f for room in ROOMS for f in (repo / room).rglob("*.py") if not f.name.startswith("test_"))
    return [repo / "setup.py", *sorted(found)]


def test_nothing_in_the_source_runs_what_it_reads(repo):
    found = {
        (file.relative_to(repo).as_posix(), call)
        for file in source_files(repo)
        for call in calls_that_run(file.read_text())
    }
    assert found == ALLOWED


def test_all_source_is_looked_at(repo):
    rooms = {f.parent.name for f in repo.glob("*/*.py")} - {"test"}
    assert rooms <= set(ROOMS), "a folder with source is not searched"
    assert len(source_files(repo)) > 250


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.load(f)",
        "import pickle as p\np.loads(b)",
        "from pickle import loads as read\nread(b)",
        "from pickle import Unpickler\nclass Mine(Unpickler): pass",
        "import pickle\nlist(map(pickle.loads, parts))",
        "import torch\ntorch.load(f)",
        "import torch\ntorch.load(f, weights_only=False)",
        "import torch\ntorch.load(f, weights_only=flag)",
        "from torch import load\nload(f)",
        "trainer.fit(model, ckpt_path=last)",
        "trainer.fit(model, ckpt_path=last, weights_only=False)",
        "import numpy as np\nnp.load(f, allow_pickle=True)",
        "import yaml\nyaml.load(f)",
        "import joblib\njoblib.load(f)",
        "import marshal\nmarshal.loads(b)",
        "import shelve\nshelve.open('f')",
        "eval(text)",
        "exec(text)",
        "list(map(eval, texts))",
        "__import__(name)",
        "import importlib\nimportlib.import_module(name)",
        "from importlib import import_module\nimport_module(name)",
        "import os\nos.system(text)",
        "import subprocess\nsubprocess.run(text, shell=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_a_call_that_runs_what_it_reads_is_found(source):
    assert calls_that_run(source)


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "import re\nre.compile(text)",
        "import json\njson.load(f)",
        "import torch\ntorch.load(f, weights_only=True)",
        "import pickle\npickle.dumps(x)",
        "import pickle\nclass Mine(pickle.Pickler): pass",
        "import numpy as np\nnp.load(f, allow_pickle=False)",
        "from importlib.metadata import version\nversion('torch')",
    ],
)
def test_a_call_that_reads_numbers_and_text_alone_is_not(source):
    assert not calls_that_run(source)
