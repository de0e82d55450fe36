"""The answers of ``acs-ground`` and their JSON, which is also written when the command ends before its last image."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from acs_core.errors import AcsError, os_problem
from acs_core.output import json_text, write_text
from acs_core.terminal import print_error
from acs_core.types import GroundingResult


class Answers:
    """Answers for a number of images, one for each image and phrase, in the order in which they were made.

    Args:
        images: number of images that the command is asked about.
    """

    def __init__(self, images: int) -> None:
        self._images = images
        self._answers: list[dict[str, Any]] = []
        self._done = 0
        self.failed = 0

    def add(self, image: Path, results: Sequence[GroundingResult]) -> None:
        """Add the results of all phrases in one image."""
        self._answers += [{"image": str(image), **result.to_dict()} for result in results]
        self._done += 1

    def add_error(self, image: Path, error: Exception) -> None:
        """Add an image that cannot be answered, and count it as failed."""
        self._answers.append({"image": str(image), "error": str(error)})
        self._done += 1
        self.failed += 1

    def write(self, file: Path) -> None:
        """Write the answer for one image and phrase as an object, several as the list ``results`` of one.

        Args:
            file: the JSON file; ``-`` for standard output.

        Raises:
            OSError, OutputError: the file cannot be written.
        """
        single = self._images == len(self._answers) == 1
        data = {k: v for k, v in self._answers[0].items() if k != "image"} if single else {"results": self._answers}
        text = json_text(data, "acs-ground")
        if file == Path("-"):
            sys.stdout.write(text)
            sys.stdout.flush()
        else:
            write_text(file, text, guarded=True)

    def save_unfinished(self, file: Path | None) -> None:
        """Write the answers so far, if any, and print how many images have one. Raises nothing, since the command is
        ending for another reason.

        Args:
            file: the JSON file; ``-`` for standard output; None for none.
        """
        if not self._answers:
            return
        where = ""
        if file is not None:
            try:
                self.write(file)
                where = f": their answers are in {file}" if file != Path("-") else ": their answers were printed"
            except (OSError, AcsError) as error:
                problem = os_problem(error, file) if isinstance(error, OSError) else error
                where = f", but their answers cannot be written: {problem}"
        print_error("acs-ground", f"{self._done} of {self._images} images are done{where}")
