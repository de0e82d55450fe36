"""Evaluation files: JSON, gzipped if the name ends in .gz (2,225 questions with 80 runs: 15 MB, 3 MB gzipped)."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from pathlib import Path

from acs_core.arguments import path
from acs_core.artifacts.json_io import Limits, parse_object, read_bounded
from acs_core.errors import AcsError, with_file
from acs_core.evaluation.layout import SCHEMA_VERSION, from_dict, to_dict
from acs_core.evaluation.records import Evaluation
from acs_core.output import write_bytes

# Limits of the unpacked text: five times what 2,225 questions with 80 runs need.
LIMITS = Limits(128 * 2**20, 10_000_000)


class EvaluationError(AcsError):
    """Raised if an evaluation file is missing or damaged, or an evaluation is too large for one."""


def save(evaluation: Evaluation, file: str | Path) -> Evaluation:
    """Write ``evaluation`` to ``file`` and return it as :func:`load` will read it.

    Boxes are rounded to 0.01 px, scores to six digits, latencies to a microsecond. Tables made from the returned
    evaluation equal those made from the file.

    Raises:
        EvaluationError: it is larger than :func:`load` accepts; nothing is written.
        OSError: the file cannot be written.
        ValueError: a prediction has the wrong number of scores, or a number is not finite.
    """
    file = Path(file)
    data = to_dict(evaluation)
    raw = json.dumps(data, allow_nan=False, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    try:
        LIMITS.check(raw)
    except ValueError as error:
        raise EvaluationError(
            f"evaluation {file} cannot be kept: {error}. Evaluate fewer questions or fewer settings at once"
        ) from error
    file.parent.mkdir(parents=True, exist_ok=True)
    # No time stamp, so that the same evaluation gives the same file.
    write_bytes(file, gzip.compress(raw, compresslevel=6, mtime=0) if file.suffix == ".gz" else raw)
    return from_dict(data)


def load(file: str | Path) -> Evaluation:
    """Read a file written by :func:`save`.

    Raises:
        EvaluationError: the file is missing, damaged, written by another version, or inconsistent; the message names
            the file and the field.
        OSError: the file cannot be read, for example for lack of permission.
        TypeError: ``file`` is not a path.
        ValueError: ``file`` is empty.
    """
    file = path("file", file)
    try:
        return from_dict(parse_object(_read(file), SCHEMA_VERSION, LIMITS))
    except FileNotFoundError as error:
        raise EvaluationError(f"evaluation {file} does not exist") from error
    except ValueError as error:
        raise EvaluationError(
            f"evaluation {file}: {error}. Such files are written by `acs-train evaluate` and `acs-replay`"
        ) from error


def _read(file: Path) -> bytes:
    with with_file(file):
        raw = read_bounded(file, LIMITS)
    if file.suffix != ".gz":
        return raw
    try:
        with gzip.open(io.BytesIO(raw)) as stream:
            unpacked = stream.read(LIMITS.max_bytes + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"it is not a whole gzip file ({error}); is it damaged or cut short?") from error
    LIMITS.check_size(len(unpacked))
    return unpacked
