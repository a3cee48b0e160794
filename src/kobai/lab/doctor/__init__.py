"""Why a net does not train: ``rules`` find ``diseases`` in what probes read, ``diagnosis`` returns the ``findings``,
``treatment`` applies ``cures`` to a copy, and ``callback`` watches a training.
"""
