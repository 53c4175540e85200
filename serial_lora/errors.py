"""The one kind of error that is meant for the person at the keyboard."""


class SerialLoRAError(ValueError):
    """One sentence that says what is wrong and what to do about it.

    The command line prints the sentence without a traceback and ends with exit code 2. Whatever
    raises this error has changed nothing: no module, no file.
    """
