"""How many files a reader has to open to follow an image message to its detections."""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import acs_ros
from acs_ros.node.camera import Camera
from acs_ros.node.query_manager import QueryManager
from acs_ros.rclpy_fixes import FaultTolerantExecutor

PACKAGE = Path(acs_ros.__file__).parent
MAX_FILES = 9
# The first function about the frame on each thread, and the function with whose end the recording ends.
SPANS = {
    Camera._on_image.__code__: Camera._on_image.__code__,
    QueryManager._answer.__code__: QueryManager._deliver.__code__,
}


class PathRecorder:
    """Records the files of acs_ros whose functions run for one frame, on every thread that starts after :meth:`start`.

    On the executor's thread that is from the subscription callback to its end, on the model's thread from the first
    function about the frame to the end of the publishing; in both cases with the callers of the first function.
    """

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.ended: list[str] = []
        self.on = False
        self._last = threading.local()

    def start(self) -> None:
        threading.setprofile(self._profile)

    def stop(self) -> None:
        threading.setprofile(None)
        self.on = False

    def _profile(self, frame: FrameType, event: str, arg: Any) -> None:
        last = getattr(self._last, "code", None)
        if event == "call":
            if last is None and self.on and frame.f_code in SPANS:
                last = self._last.code = SPANS[frame.f_code]
                caller = frame.f_back
                while caller is not None:
                    self._add(caller)
                    caller = caller.f_back
            if last is not None:
                self._add(frame)
        elif event == "return" and frame.f_code is last:
            self._last.code = None
            self.ended.append(frame.f_code.co_name)

    def _add(self, frame: FrameType) -> None:
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(PACKAGE):
            self.files.add(str(file.relative_to(PACKAGE.parent)))


@pytest.fixture
def recorder():
    made = PathRecorder()
    made.start()
    yield made
    made.stop()


def test_an_image_message_passes_through_few_files(recorder, make_rig, grounder, image, until):
    failures: list[Any] = []
    make_executor = functools.partial(FaultTolerantExecutor, failed=lambda *failure: failures.append(failure))
    rig = make_rig(lambda settings: grounder, make_executor=make_executor)
    rig.activate()
    rig.ask("key")
    rig.images.publish(image(stamp=1))
    until(lambda: rig.detections, "the first answer")
    rig.rest()
    recorder.on = True
    rig.images.publish(image(stamp=2))
    until(lambda: sorted(recorder.ended) == ["_deliver", "_on_image"], "the second answer")
    print("\n".join(sorted(recorder.files)))
    assert not failures and len(recorder.files) > 5
    assert len(recorder.files) <= MAX_FILES, sorted(recorder.files)
