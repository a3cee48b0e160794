"""What :func:`kobai.vmap` computes with: arrays of samples that look like one sample.

``arrays.py`` is the array type and ``namespace.py`` NumPy's functions on it with their batching rules, of which ``shapes.py``,
``indexing.py`` and ``products.py`` have more. ``primitives.py`` runs primitives on it, ``border.py`` takes tensors in and out,
``randomness.py`` draws; ``vectorize.py`` is ``vmap`` itself.
"""
