"""Transforms as messages."""

from geometry_msgs.msg import TransformStamped

from acs_ros.conversions.transforms import NS


def stamped(parent, child, seconds=0.0, translation=(0.0, 0.0, 0.0), rotation=(0.0, 0.0, 0.0, 1.0)):
    """The transform from ``child`` to ``parent`` at a time in seconds."""
    msg = TransformStamped(child_frame_id=child)
    msg.header.frame_id = parent
    msg.header.stamp.sec, msg.header.stamp.nanosec = divmod(round(seconds * NS), NS)
    t, q = msg.transform.translation, msg.transform.rotation
    t.x, t.y, t.z = translation
    q.x, q.y, q.z, q.w = rotation
    return msg
