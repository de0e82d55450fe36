"""All targets by name."""

from __future__ import annotations

from fuzz import answers, asking, files, pictures
from fuzz.target import Target

TARGETS: dict[str, Target] = {
    target.name: target for room in (answers, pictures, files, asking) for target in room.TARGETS
}
