"""Why a net does not train: ``rules`` name ``diseases`` from what probes read, ``diagnosis`` gives ``findings``, ``treatment``
applies ``cures`` to a copy, and ``callback`` does it all during training.
"""
