"""One evaluation of ``acs-replay``: reads the bag, gets the answers, writes the results."""

from __future__ import annotations

import argparse
import datetime
import platform
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from acs_core.evaluation.page import reader_from, write_page
from acs_core.evaluation.storage import save
from acs_core.evaluation.table import Table, print_tables, to_json
from acs_core.evaluation.tables import assess, tables_of, write_tables
from acs_core.output import write_json, write_picture
from acs_core.output_folder import OutputFolder
from acs_core.terminal import make_console, print_error
from acs_ros.bags.reader import Bag
from acs_ros.node.model_loader import GrounderLoader
from acs_ros.node.parameters import Settings
from acs_ros.replay.contact_sheet import ContactSheet
from acs_ros.replay.evaluation import items_of, make_evaluation, method_of
from acs_ros.replay.frame_table import NOT_SENT, frame_rows, per_frame_table, print_frames, summary_lines
from acs_ros.replay.journal import AnswerJournal
from acs_ros.replay.live import LiveOptions, LiveRun
from acs_ros.replay.material import BagData, load_bag_data, without_misfits
from acs_ros.replay.offline import OfflineRun
from acs_ros.replay.output import Output, steps
from acs_ros.replay.replies import Fate, Replies
from acs_ros.replay.settings import changed, identity
from acs_ros.replay.summary import as_json, facts_of, frames_table, latency_table, phrases_table, scores_table
from acs_ros.stop_signals import StopSignals

MOST_TIMEOUT_S = 3600.0  # largest value of the node's image_timeout
# What a run writes when it has ended. The answers (answers-*.jsonl) are written as they come.
REPORT = "report.html"
NODE_LOG = "node.log"
SHEET = "contact_sheet.png"
MADE = (REPORT, SHEET, "evaluation.json", "tables/*", "frames/*", "bag/*")
# A command of earlier versions whose output folder `make demo` still has; its other files are removed from there.
EARLIER, MADE_EARLIER = ("grounding_demo",), ("results.json", "result_bag/*")


class Session:
    """Evaluates one bag. ``options`` are those of the command line, ``settings`` the node's parameters."""

    def __init__(
        self, bag: Bag, options: argparse.Namespace, settings: Settings, console: Console, stop: StopSignals
    ) -> None:
        self._bag, self._options, self._settings = bag, options, settings
        self._console, self._stop = console, stop
        self._said: list[str] = []

    def read(self) -> BagData:
        """Look through the bag and print what is in it. Needs neither the model nor torch.

        Raises:
            BagError, AcsError, OSError: the bag cannot be evaluated with these options; the message says why.
        """
        with steps("looking through the bag", None) as advance:
            material = load_bag_data(self._bag, self._options, advance)
        self._introduce(material)
        return material

    def run(self, material: BagData, load: GrounderLoader) -> int:
        """Run the evaluation; returns the exit code.

        Args:
            material: What :meth:`read` found.
            load: Loads the model.

        Raises:
            AcsError, NodeTrouble, OSError: the run failed; the message says what to do.
        """
        options = self._options
        read = (self._bag.path, options.coco, options.params_file)
        with OutputFolder(options.out, "acs-replay", inputs=read, replaces=MADE, shared_with=EARLIER) as out:
            replies = self._live(material) if options.live else self._offline(material, load)
            material = without_misfits(material, replies)
            self._tell(material)
            # Whatever an earlier run wrote is worth more than the results of one that did not come to its end.
            ended = not replies.problem and not replies.stopped and replies.count(Fate.ANSWERED) > 0
            reported = ended or not out.has(*MADE, *MADE_EARLIER)
            if reported:
                with out.stage(*MADE, *MADE_EARLIER) as staged:
                    self._report(material, replies, staged)
        kept = f"{options.out} has what was answered until then"
        if not reported:
            kept = f"the results of an earlier run in {options.out} stay"
        contradiction = self._contradiction(replies)
        if contradiction:
            print_error("acs-replay", contradiction)
        if replies.problem:
            print_error("acs-replay", f"the run broke off: {replies.problem}; {kept}")
            return 1
        if replies.stopped:
            print_error("acs-replay", f"stopped; {kept}")
            return 130
        if problem := self._too_few_answers(replies):
            print_error("acs-replay", problem)
            return 1
        if not ended:
            print_error("acs-replay", "no frame was answered" + ("" if reported else f"; {kept}"))
            return 1
        return 1 if contradiction else 0

    def _contradiction(self, replies: Replies) -> str:
        """Error message where ~/detections and ~/candidates of a live node disagree, or "". No share of such frames is
        tolerated: it is an error in the node, not a frame that was lost on the way."""
        failed = [f for f in replies.frames if f.fate is Fate.FAILED]
        if not self._options.live or not failed:
            return ""
        first = failed[0]
        phrase, kept = next((p, k) for p, k in zip(first.phrases, first.kept, strict=True) if k.result is None)
        return (
            f"FAILED: the node contradicts itself in {len(failed)} of {len(replies.frames)} frames; "
            f"frame {first.frame.number}, {phrase}: {kept.problem}"
        )

    def _too_few_answers(self, replies: Replies) -> str:
        """Error message where fewer frames were answered than --min-answered asks for, or ""."""
        options = self._options
        due = sum(bool(f.phrases) for f in replies.frames)
        answered = replies.count(Fate.ANSWERED)
        if answered >= options.min_answered * due:
            return ""
        log = f"; see {options.out / NODE_LOG}" if options.start_node else ""
        dropped = replies.count(Fate.DROPPED)
        newer = f" ({dropped} were dropped for newer ones)" if dropped else ""
        return (
            f"FAILED: only {answered} of {due} frames were answered{newer}, --min-answered asks for "
            f"{options.min_answered:.0%}{log}"
        )

    def _introduce(self, material: BagData) -> None:
        frames, topics = material.frames, material.topics
        span = material.due[-1] / 1e9
        kind = "CompressedImage" if topics.compressed else "Image"
        self._say(f"{self._bag.path}: {len(frames)} frames on {topics.image} ({kind}) over {span:.1f} s", "bold")
        self._say(f"asked: {material.plan.source}; ground truth: {material.truth_source}")
        self._tell(material)

    def _offline(self, material: BagData, load: GrounderLoader) -> Replies:
        with make_console(stderr=True).status(f"loading {self._settings.model}"):
            grounder = load(self._settings)
        with AnswerJournal(self._options.out, identity(self._settings, grounder)) as journal:
            if journal.found:
                self._say(f"{journal.found} answers are here already and are not asked again ({journal.file})")
            elif journal.others:
                self._say("new settings: every frame is asked anew (answers under other settings stay beside them)")
            offline = OfflineRun(grounder, self._settings, journal, self._stop)
            with steps(f"asking {grounder.model_name}", len(material.frames)) as advance:
                return offline.run(self._bag, material.topics, material.plan, advance)

    def _live(self, material: BagData) -> Replies:
        options = self._options
        start = None
        if options.start_node:
            transport = "compressed" if material.topics.compressed else "raw"
            # Stamps and pauses are those of the bag and of the playing, and nothing to warn of.
            own = {"image_timeout": min(MOST_TIMEOUT_S, max(options.wait, options.quiet))}
            given = own | changed(self._settings) | {"image_transport": transport, "stale_after": 0.0}
            start = tuple(word for name, value in given.items() for word in ("-p", f"{name}:={value}"))
        live = LiveOptions(
            options.node,
            options.publish_to or "",
            options.rate,
            options.wait,
            options.quiet,
            start,
            options.out / NODE_LOG,
            options.lockstep,
        )
        self._say(f"playing to {options.node} {self._pace}")
        with steps("playing", sum(bool(a.phrases) for a in material.plan.asked)) as advance:
            replies = LiveRun(live, self._stop, advance, self._say).run(material)
        if replies.facts:
            self._say("; ".join(f"{name}: {value}" for name, value in replies.facts.items()))
        return replies

    @property
    def _pace(self) -> str:
        """How fast frames are sent."""
        if self._options.lockstep:
            return "frame by frame, each when the one before is answered"
        return f"at {self._options.rate:g} times the bag's speed"

    def _report(self, material: BagData, replies: Replies, out: Path) -> None:
        options = self._options
        now = self._settings
        reading = now.max_image_pixels, now.accept_tiff, now.image_bits, now.accept_16uc1
        output = Output(out, self._bag.storage, options.node, options.pictures, *reading)
        answered = sum(any(k.result is not None for k in f.kept) for f in replies.frames)
        items = items_of(replies, material.truth)
        known = None if options.live and not options.start_node else self._settings
        method = method_of(items, known, options.name)
        facts = self._facts(material, replies) | facts_of(replies, items)
        title = options.title or f"{self._bag.path.resolve().name}: {method.name}{', live' if options.live else ''}"
        rows = frame_rows(replies, material.truth)
        sheet = ContactSheet([row for row in rows if row.verdict not in NOT_SENT], title, summary_lines(rows))
        with steps("drawing", answered or None) as advance:
            output.write(self._bag, material.topics, replies, material.truth, not options.no_bag, advance, sheet)
            if sheet.wanted:
                write_picture(out / SHEET, np.asarray(sheet.render()), "acs-replay")
        print_frames(rows, self._console)
        evaluation = save(make_evaluation(title, items, method, output.picture_of, facts), out / "evaluation.json")
        assessed = assess(evaluation)
        own = frames_table(replies), latency_table(replies, options.live), phrases_table(items), scores_table(assessed)
        shown = [table for table in own if table is not None]
        print_tables(shown, self._console)
        tables = [*shown, *tables_of(assessed)]
        write_tables([*tables, per_frame_table(rows)], out / "tables")
        self._write_json(tables, replies, items, facts)
        with steps("writing the report", None) as advance:
            write_page([assessed], out / "report.html", reader_from(out), progress=lambda done, total: advance())
        made = ", bag/ (for RViz or Foxglove)" if answered and not options.no_bag else ""
        pictures = f" {SHEET}," if sheet.wanted else ""
        self._say(f"written to {options.out}:{pictures} report.html, evaluation.json, tables/{made}")

    def _facts(self, material: BagData, replies: Replies) -> dict[str, str]:
        results = [k.result for f in replies.frames for k in f.kept if k.result is not None]
        last = results[-1] if results else None
        own = {} if self._options.live and not self._options.start_node else changed(self._settings)
        found = {
            "bag": str(self._bag.path),
            "images": material.topics.image,
            "asked": material.plan.source,
            "ground truth": material.truth_source,
            "way": f"live {self._pace}" if self._options.live else "offline",
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
        write_json(self._options.json, data, "acs-replay")

    def _tell(self, material: BagData) -> None:
        """Print the notes that were not printed yet."""
        for note in (*self._bag.notes, *material.notes):
            if note not in self._said:
                self._said.append(note)
                self._say(f"note: {note}", "yellow")

    def _say(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style), soft_wrap=True)
