"""An evaluation as one file: JSON, gzipped where its name ends in .gz (2,225 questions with 80 runs: 15 MB, 3 MB)."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path

from acs_core.errors import AcsError
from acs_core.jsonfile import parse_object
from acs_eval.layout import SCHEMA_VERSION, from_dict, to_dict
from acs_eval.records import Evaluation

MAX_BYTES = 512 * 2**20  # unpacked


class EvaluationError(AcsError):
    """An evaluation file cannot be read."""


def save(evaluation: Evaluation, file: str | Path) -> Evaluation:
    """Writes ``evaluation`` and gives it back as :func:`load` will: boxes are rounded to 0.01 px, scores to six digits,
    latencies to a microsecond. Make tables from what comes back, and they are those of the file.

    Raises:
        OSError: the file cannot be written.
        ValueError: an answer with the wrong number of scores, or a number that is not finite.
    """
    file = Path(file)
    data = to_dict(evaluation)
    raw = json.dumps(data, allow_nan=False, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.part")  # a run that is killed leaves no half a file under the name
    # No time stamp: the same evaluation is the same file.
    beside.write_bytes(gzip.compress(raw, compresslevel=6, mtime=0) if file.suffix == ".gz" else raw)
    beside.replace(file)
    return from_dict(data)


def load(file: str | Path) -> Evaluation:
    """Reads a file that :func:`save` wrote.

    Raises:
        EvaluationError: missing, damaged, written by another version, or its lists do not fit together; the message
            names the file and the field.
    """
    file = Path(file)
    try:
        return from_dict(parse_object(_read(file), SCHEMA_VERSION))
    except ValueError as error:
        raise EvaluationError(
            f"evaluation {file}: {error}. Such files are written by `acs-train evaluate` and `acs-replay`"
        ) from error


def _read(file: Path) -> bytes:
    too_large = ValueError(f"it is larger than {MAX_BYTES // 2**20} MiB, which no such file needs")
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise ValueError("it does not exist") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"it is not a whole gzip file ({error}); is it damaged or cut short?") from error
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror or error}") from error
    if len(raw) > MAX_BYTES:
        raise too_large
    return raw
