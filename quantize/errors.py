"""What can go wrong while quantizing. Every message is one line that names the thing, the value and the remedy.

    QuantizeError
    +-- UnsupportedModel    the checkpoint is of a kind this package cannot write: architecture, tensors, tokenizer
    +-- TargetError         the file to write: exists, has no room, cannot be written

A damaged source raises backends.base.ModelFileError.
"""


class QuantizeError(Exception):
    """Anything this package can say went wrong."""


class UnsupportedModel(QuantizeError):
    """The checkpoint is of a kind this package cannot write."""


class TargetError(QuantizeError):
    """The file to write exists already, has no room or cannot be written."""


NOT_FINITE = "get the file again, or convert it all the same with --allow-nan"
