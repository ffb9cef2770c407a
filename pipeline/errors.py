"""What can go wrong, as the user sees it: one base error and a handful of kinds.

Every message is one clear sentence that says what was found and what to do about it.
Anything that is not a `LandcoverError` is a bug of ours.
"""


class LandcoverError(Exception):
    """Base of every error that is the input's, the option's or the machine's, not ours."""


class UsageError(LandcoverError):
    """An option or a combination of options cannot be meant; nothing was started."""


class SceneError(LandcoverError):
    """A scene cannot be opened, read or placed on the ground."""


class ModelError(LandcoverError):
    """A model bundle is missing, damaged or does not fit its own card."""


class DeviceError(LandcoverError):
    """The computing device asked for is absent or too small."""


class TrainingError(LandcoverError):
    """Training data or a recipe cannot be used."""


class OutputError(LandcoverError):
    """A result cannot be written."""
