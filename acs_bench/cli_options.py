"""Options that several commands of ``acs-bench`` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Shape = Annotated[str, typer.Option(help="small, 7b or 8b (random weights of that size), or a model's name or folder.")]
Model = Annotated[str, typer.Option(help="A model's name, folder or hub id.")]
Picture = Annotated[Path, typer.Option(help="Picture to look at.")]
ImageTokens = Annotated[int, typer.Option(help="Tokens of the picture, for a shape.", min=1)]
Frame = Annotated[str, typer.Option(help="WIDTHxHEIGHT of the picture, for a real model.")]
Samples = Annotated[int, typer.Option(help="Responses N.", min=1)]
NewTokens = Annotated[int, typer.Option(help="Tokens of each response.", min=8)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, float16 or bfloat16.")]
Threads = Annotated[int, typer.Option(help="CPU threads.", min=1)]
Repeats = Annotated[int, typer.Option(help="Runs of each; the median counts.", min=1)]
Json = Annotated[Path | None, typer.Option("--json", help="Also write the numbers to this file.")]
