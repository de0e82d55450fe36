"""A stand-in for tf2_ros, written after its documentation: a buffer of transforms between one pair of frames."""


class TransformException(Exception):
    """Any of the following."""


class LookupException(TransformException):
    """A frame is not known."""


class ConnectivityException(TransformException):
    """The frames are not connected."""


class ExtrapolationException(TransformException):
    """Not at this time."""


class Buffer:
    """The documented class; knows only direct transforms and their exact stamps, and 0 for the newest."""

    def __init__(self, cache_time=None, node=None):
        self.cache_time = cache_time
        self._dynamic, self._static = {}, {}

    def set_transform(self, transform, authority):
        """Add a transform of /tf."""
        stamp = transform.header.stamp.sec * 10**9 + transform.header.stamp.nanosec
        self._dynamic.setdefault((transform.header.frame_id, transform.child_frame_id), {})[stamp] = transform

    def set_transform_static(self, transform, authority):
        """Add a transform of /tf_static."""
        self._static[transform.header.frame_id, transform.child_frame_id] = transform

    def clear(self):
        """Drop the transforms of /tf; their frames stay known."""
        for known in self._dynamic.values():
            known.clear()

    def lookup_transform(self, target_frame, source_frame, time, timeout=None):
        """The transform at ``time``, a rclpy Time."""
        pair = target_frame, source_frame
        if pair in self._static:
            return self._static[pair]
        if pair not in self._dynamic:
            raise LookupException(f'"{source_frame}" passed to lookupTransform argument source_frame does not exist.')
        known = self._dynamic[pair]
        if not known and not time.nanoseconds:
            raise ConnectivityException(f"Could not find a connection between '{target_frame}' and '{source_frame}'.")
        stamp = time.nanoseconds or max(known)
        if stamp not in known:
            raise ExtrapolationException("Lookup would require extrapolation into the future.")
        return known[stamp]
