"""One run of ``acs-replay``, from the bag to the report."""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from acs_eval.page import write_page
from acs_eval.pictures import reader_from
from acs_eval.storage import save
from acs_eval.table import Table, print_tables, to_json
from acs_eval.tables import assess, tables_of, write_tables
from acs_ros.grounder_source import GrounderLoader
from acs_ros.parameters import Settings
from acs_ros.replay.evaluation import items_of, make_evaluation, method_of
from acs_ros.replay.journal import Journal
from acs_ros.replay.live import LiveOptions, LiveRun
from acs_ros.replay.material import Material, gather, without_misfits
from acs_ros.replay.offline import OfflineAsker
from acs_ros.replay.output import Output
from acs_ros.replay.progress import steps
from acs_ros.replay.replies import Fate, Replies
from acs_ros.replay.settings import changed, identity
from acs_ros.replay.stopping import Stop
from acs_ros.replay.storage import Bag
from acs_ros.replay.summary import as_json, facts_of, frames_table, latency_table, phrases_table, scores_table


class Session:
    """Evaluates one bag as ``options`` say. ``settings`` are the node's parameters."""

    def __init__(self, bag: Bag, options: argparse.Namespace, settings: Settings, console: Console, stop: Stop) -> None:
        self._bag, self._options, self._settings = bag, options, settings
        self._console, self._stop = console, stop
        self._said: list[str] = []

    def run(self, load: GrounderLoader) -> int:
        """All of it; the exit code.

        Raises:
            BagError, AcsError, NodeTrouble, OSError: it cannot be done; says what to do.
        """
        options = self._options
        with steps("looking through the bag", None) as advance:
            material = gather(self._bag, options, advance)
        self._introduce(material)
        options.out.mkdir(parents=True, exist_ok=True)
        replies = self._live(material) if options.live else self._offline(material, load)
        material = without_misfits(material, replies)
        self._tell(material)
        self._report(material, replies)
        if replies.problem:
            print(f"acs-replay: the run broke off: {replies.problem}", file=sys.stderr)
            return 1
        if replies.stopped:
            print(f"acs-replay: stopped; {options.out} has what was answered until then", file=sys.stderr)
            return 130
        if not replies.count(Fate.ANSWERED):
            print("acs-replay: no frame was answered", file=sys.stderr)
            return 1
        return 0

    def _introduce(self, material: Material) -> None:
        frames, topics = material.frames, material.topics
        span = (frames[-1].time_ns - frames[0].time_ns) / 1e9
        kind = "CompressedImage" if topics.compressed else "Image"
        self._say(f"{self._bag.path}: {len(frames)} frames on {topics.image} ({kind}) over {span:.1f} s", "bold")
        self._say(f"asked: {material.plan.source}; ground truth: {material.truth_source}")
        self._tell(material)

    def _offline(self, material: Material, load: GrounderLoader) -> Replies:
        with Console(stderr=True).status(f"loading {self._settings.model}"):
            grounder = load(self._settings)
        with Journal(self._options.out, identity(self._settings, grounder)) as journal:
            if journal.found:
                self._say(f"{journal.found} answers are here already and are not asked again ({journal.file})")
            elif journal.others:
                self._say("new settings: every frame is asked anew (answers under other settings stay beside them)")
            asker = OfflineAsker(grounder, self._settings, journal, self._stop)
            with steps(f"asking {grounder.model_name}", len(material.frames)) as advance:
                return asker.run(self._bag, material.topics, material.plan, advance)

    def _live(self, material: Material) -> Replies:
        options = self._options
        start = None
        if options.start_node:
            transport = "compressed" if material.topics.compressed else "raw"
            given = changed(self._settings) | {"image_transport": transport, "stale_after": 0.0}
            start = tuple(word for name, value in given.items() for word in ("-p", f"{name}:={value}"))
        live = LiveOptions(
            options.node,
            options.publish_to or "",
            options.rate,
            options.wait,
            options.quiet,
            start,
            options.out / "node.log",
        )
        self._say(f"playing to {options.node} at {options.rate:g} times the bag's speed")
        with steps("playing", sum(bool(a.phrases) for a in material.plan.asked)) as advance:
            replies = LiveRun(live, self._stop, advance, self._say).run(material)
        if replies.facts:
            self._say("; ".join(f"{name}: {value}" for name, value in replies.facts.items()))
        return replies

    def _report(self, material: Material, replies: Replies) -> None:
        options, out = self._options, self._options.out
        output = Output(out, self._bag.storage, options.node, options.pictures, self._settings.max_image_pixels)
        answered = sum(any(k.result is not None for k in f.kept) for f in replies.frames)
        if answered:
            with steps("drawing", answered) as advance:
                output.write(self._bag, material.topics, replies, material.truth, not options.no_bag, advance)
        items = items_of(replies, material.truth)
        known = None if options.live and not options.start_node else self._settings
        method = method_of(items, known, options.name)
        facts = self._facts(material, replies) | facts_of(replies, items)
        title = options.title or f"{self._bag.path.resolve().name}: {method.name}{', live' if options.live else ''}"
        evaluation = save(make_evaluation(title, items, method, output.picture_of, facts), out / "evaluation.json")
        assessed = assess(evaluation)
        own = frames_table(replies), latency_table(replies, options.live), phrases_table(items), scores_table(assessed)
        shown = [table for table in own if table is not None]
        print_tables(shown, self._console)
        tables = [*shown, *tables_of(assessed)]
        write_tables(tables, out / "tables")
        self._write_json(tables, replies, items, facts)
        with steps("writing the report", None) as advance:
            write_page([assessed], out / "report.html", reader_from(out), progress=lambda done, total: advance())
        made = ", bag/ (for RViz or Foxglove)" if answered and not options.no_bag else ""
        self._say(f"written to {out}: report.html, evaluation.json, tables/{made}")

    def _facts(self, material: Material, replies: Replies) -> dict[str, str]:
        results = [k.result for f in replies.frames for k in f.kept if k.result is not None]
        last = results[-1] if results else None
        own = {} if self._options.live and not self._options.start_node else changed(self._settings)
        found = {
            "bag": str(self._bag.path),
            "images": material.topics.image,
            "asked": material.plan.source,
            "ground truth": material.truth_source,
            "way": f"live at {self._options.rate:g} times the bag's speed" if self._options.live else "offline",
            "model": last.model if last else self._settings.model,
            "revision": (last.revision or "") if last else "",
            "selector": last.selector if last else self._settings.selector,
            "score": last.score_kind.value if last else "",
            "parameters": ", ".join(f"{name} {value}" for name, value in own.items()) or "defaults",
            "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
            **replies.facts,
            **{f"note {number}": note for number, note in enumerate(self._said, start=1)},
        }
        return {name: value for name, value in found.items() if value}

    def _write_json(self, tables: list[Table], replies: Replies, items: Any, facts: dict[str, str]) -> None:
        if self._options.json is None:
            return
        data = {"facts": facts, "tables": to_json(tables), **as_json(replies, items)}
        self._options.json.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def _tell(self, material: Material) -> None:
        """Say the notes that were not said yet."""
        for note in (*self._bag.notes, *material.notes):
            if note not in self._said:
                self._said.append(note)
                self._say(f"note: {note}", "yellow")

    def _say(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style), soft_wrap=True)


def silence_transformers() -> None:
    """No progress bars and hints of the library among our own."""
    from transformers.utils import logging  # late: it takes seconds

    logging.set_verbosity_error()
    logging.disable_progress_bar()
