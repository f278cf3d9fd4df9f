"""One exception type per kind of failure; each message names the thing and the remedy.

`exit_code` is what the command line returns; docs/cli.md lists all of them (cli/failures.py).
"""


class QwickError(Exception):
    """Base of every error qwick raises on purpose."""

    exit_code = 1


class UsageError(QwickError):
    """The caller asked for something that does not exist or does not fit together (an option, a path, a limit)."""

    exit_code = 2


class CheckpointError(QwickError):
    """A model file is missing, truncated, or says something that cannot be true."""

    exit_code = 3


class ConfigError(QwickError):
    """A config.json describes a network that qwick does not implement, or contradicts itself or the tensors."""

    exit_code = 4


class CapacityError(QwickError):
    """The request does not fit: context length, pages, slots or memory."""

    exit_code = 5


class TemplateError(QwickError):
    """A chat template failed, or refused the messages it was given."""

    exit_code = 6


class KernelError(QwickError):
    """The native library cannot do what was asked on this machine (an impossible `QWICK_ISA`, no memory)."""

    exit_code = 7


class PackError(Exception):
    """A file of the pack cache is damaged. Whoever opens a model catches it and reads the model's own files."""


class QwickWarning(UserWarning):
    """Base of every warning qwick gives. The command line shows it as one line."""


class FormatWarning(QwickWarning):
    """A file holds weights in a type that costs more here than it promises."""


class ContextWarning(QwickWarning):
    """A context is longer than the model's card speaks of."""


class StateWarning(QwickWarning):
    """A file that qwick keeps for itself is damaged, and ignored."""


class VerificationError(QwickError):
    """`qwick verify` found something that is not as it must be: the file, the machine or a kernel is wrong."""

    exit_code = 8


class EngineError(QwickError):
    """The engine failed while it worked on a request; other requests go on, and the same one may be asked again."""

    exit_code = 9
