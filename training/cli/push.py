"""``acs-train push``: uploads the files that `acs-train build` made to the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from acs_core.artifacts.model_name import is_hub_id
from training.cli.config import Configuration, recorded
from training.cli.options import Json, say

if TYPE_CHECKING:
    from acs_core.lvlm import ModelSource


@dataclass(frozen=True, kw_only=True)
class PushOptions(Configuration):
    """Options of ``acs-train push``."""

    command = "push"
    files: Annotated[Path, typer.Option(help="Folder that `acs-train build` wrote.")]
    to: Annotated[str, typer.Option(help="Repository of the hub, owner/name; created if there is none.")]
    model: Annotated[
        str | None,
        typer.Option(help="Hub id of the model, if the files were built for a copy of it in a folder."),
    ] = None
    private: Annotated[
        bool, typer.Option(help="Create the repository as a private one; never upload to a public one.")
    ] = False
    plan: Annotated[bool, typer.Option(help="Only check the files, and list what would be uploaded.")] = False
    json: Json = None


def push(options: PushOptions) -> None:
    """Upload the files for an LVLM to the hub, with their card, as one commit that names the commit of the model."""
    o = options
    for name, value in (("--to", o.to), ("--model", o.model)):
        if value is not None and not is_hub_id(value):
            raise typer.BadParameter("must be a hub id, owner/name", param_hint=name)
    # Late: torch takes seconds.
    from acs_core.lvlm import open_model
    from acs_core.output import write_json
    from training.fitting import push as job

    def source_of(name: str, revision: str | None) -> ModelSource:
        return open_model(name, revision=revision, device="cpu")

    with recorded(o, None, o.json):
        upload = job.prepare(o.files, o.to, source_of, o.model)
        commit = None
        if o.plan:
            for name in upload.names:
                typer.echo(name)
        else:
            say(f"uploading {len(upload.names)} files to {o.to}")
            commit = job.push(upload, o.to, o.private, say)
            typer.echo(f'uploaded: Grounder.from_pretrained("{o.to}", revision="{commit}")')
        if o.json:
            content = {"repository": o.to, "commit": commit, "files": list(upload.names)}
            write_json(o.json, content, o.full_command)
