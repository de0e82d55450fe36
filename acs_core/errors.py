"""Named errors. Each message says what was wrong, where, and what to do about it."""


class AcsError(Exception):
    """Base of all errors that acs raises on purpose."""


class ModelError(AcsError):
    """The model folder or id cannot be used: missing, another architecture, remote code, unsafe weights."""


class HeadFileError(AcsError):
    """A head file cannot be read, or was made for another model."""


class RegressorError(AcsError):
    """A regressor file cannot be read, or was made for another model."""


class JointError(RegressorError):
    """A joint quality file cannot be read, or was made for another model."""


class CalibrationError(AcsError):
    """A calibration file cannot be read, or was made for another selector or model."""


class SelectorError(AcsError, ValueError):
    """There is no selector of that name."""


class PhraseError(AcsError):
    """The phrase cannot be asked: empty, too long, or made of control characters only."""


class ImageError(AcsError):
    """The image cannot be used: wrong shape, type, encoding, size, or truncated data."""


class DeviceMemoryError(AcsError):
    """The model's device has no room for even one response to this picture."""


class Cancelled(AcsError):
    """The caller asked the running call to stop."""
