"""The transforms of /tf and /tf_static: in tf2's buffer where tf2_ros is installed, else in one of our own."""

from __future__ import annotations

import importlib.util
from typing import Any

from geometry_msgs.msg import TransformStamped
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time

from acs_ros.conversions.transforms import (
    KEPT_S,
    NS,
    NoTransformAt,
    RigidTransform,
    TransformBuffer,
    TransformError,
    TransformLookup,
    find_transform,
)
from acs_ros.errors import describe

# The profiles of tf2_ros.
DYNAMIC = QoSProfile(depth=100)
STATIC = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Tf2Buffer:
    """tf2's buffer, with the methods of :class:`~acs_ros.conversions.transforms.TransformLookup`."""

    def __init__(self, tf2_ros: Any) -> None:
        self._tf2 = tf2_ros
        self._buffer = tf2_ros.Buffer(cache_time=Duration(seconds=KEPT_S))

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        """Add a transform of /tf."""
        self._buffer.set_transform(transform, authority)

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        """Add a transform of /tf_static."""
        self._buffer.set_transform_static(transform, authority)

    def at(self, target: str, source: str, stamp: int) -> RigidTransform:
        """See :meth:`~acs_ros.conversions.transforms.TransformLookup.at`."""
        return RigidTransform.of(self._lookup(target, source, stamp))

    def newest(self, target: str, source: str) -> int:
        """See :meth:`~acs_ros.conversions.transforms.TransformLookup.newest`."""
        stamp = self._lookup(target, source, 0).header.stamp
        return int(stamp.sec) * NS + int(stamp.nanosec)

    def clear(self) -> None:
        """See :meth:`~acs_ros.conversions.transforms.TransformLookup.clear`."""
        self._buffer.clear()

    def _lookup(self, target: str, source: str, stamp: int) -> TransformStamped:
        try:
            return self._buffer.lookup_transform(target, source, Time(nanoseconds=stamp))
        except self._tf2.ExtrapolationException as error:
            raise NoTransformAt(str(error)) from error
        except self._tf2.TransformException as error:
            raise TransformError(f"no transform from {source[:80]!r} to {target[:80]!r}: {error}") from error


class TransformListener:
    """Subscribes to /tf and /tf_static for ``node`` and finds transforms to the frame ``target``.

    Attributes:
        target: Name of the frame.
    """

    def __init__(self, node: Node, target: str) -> None:
        self._node, self.target = node, target
        self._subscriptions: list[Any] = []
        self._missing = ""
        self._buffer = make_buffer()
        try:
            from tf2_msgs.msg import TFMessage
        except ImportError as error:
            self._missing = f"target_frame needs tf2_msgs, which cannot be imported: {describe(error)}"
            return
        group = MutuallyExclusiveCallbackGroup()
        for topic, qos, set_transform in (
            ("/tf", DYNAMIC, self._buffer.set_transform),
            ("/tf_static", STATIC, self._buffer.set_transform_static),
        ):

            def take(msg: Any, set_transform: Any = set_transform) -> None:
                for transform in msg.transforms:
                    set_transform(transform, "acs")

            self._subscriptions.append(node.create_subscription(TFMessage, topic, take, qos, callback_group=group))

    def find(self, source: str, stamp: int, tolerance: float) -> RigidTransform:
        """The transform from ``source`` to the target frame at ``stamp`` nanoseconds, or the newest one if that is at
        most ``tolerance`` seconds older.

        Raises:
            TransformError: there is none; the message says why.
        """
        if self._missing:
            raise TransformError(self._missing)
        return find_transform(self._buffer, self.target, source, stamp, tolerance)

    def clear(self) -> None:
        """Drop the transforms of /tf, because time went backwards."""
        self._buffer.clear()

    def destroy(self) -> None:
        """Destroy the subscriptions."""
        made, self._subscriptions = self._subscriptions, []
        for subscription in made:
            self._node.destroy_subscription(subscription)


def make_buffer() -> TransformLookup:
    """tf2's buffer where tf2_ros can be imported, else our own."""
    if importlib.util.find_spec("tf2_ros") is None:
        return TransformBuffer()
    try:
        import tf2_ros

        return Tf2Buffer(tf2_ros)
    except Exception:  # a broken installation: our own buffer answers the same questions
        return TransformBuffer()
