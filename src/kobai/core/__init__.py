"""What everything else stands on: the tensor, the tape that records operations on it, and the files the library writes.

A reader starts here: ``tensor`` (data, gradient, methods), ``tape`` (nodes and backward), ``primitive`` (how an operation is
declared), ``grad_mode`` (whether to record), ``anomaly``, ``printing``. ``files``, ``checksum``, ``untrusted`` and ``terminal``
are what reading and writing for a stranger takes: whole files, noticed damage, limits, harmless text.
"""
