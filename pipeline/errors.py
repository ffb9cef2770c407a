"""The errors that users see: one base class and a handful of kinds.

Every message is one clear sentence that says what was found and what to do about it.
Any other exception is a bug.
"""


class LandcoverError(Exception):
    """Base of all errors caused by the input, the options or the machine."""


class UsageError(LandcoverError):
    """An option or a combination of options makes no sense; nothing was started."""


class SceneError(LandcoverError):
    """A scene cannot be opened, read or placed on the ground."""


class ModelError(LandcoverError):
    """A model bundle is missing, damaged or does not fit its own card."""


class DeviceError(LandcoverError):
    """The requested computing device is not available or too small."""


class TrainingError(LandcoverError):
    """Training data or a recipe cannot be used."""


class OutputError(LandcoverError):
    """A result cannot be written."""
