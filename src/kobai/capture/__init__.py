"""A training step, recorded once and then replayed: the parts of ``kobai.capture``.

``step`` has the function that users call. ``session`` records one call: on the host as a flat program over fixed memory
(``arrays``, ``recorder``, ``memory``, and ``numpy_calls`` for what NumPy's functions do), on a CUDA device as a graph
(``graph``); ``rules`` says what a step may do. ``watch`` notices what would make the recording stale (``reads``: code,
``kinds``: objects, ``walk``: from one to the other, ``guards``: what is compared). ``audit`` compares replays with eager
calls::

    call ──► step ──► guards hold? ── yes ──► replay                            (recorder.Program, graph.Graph)
                          │ no
                          └──► session: the step, run as it is under rules ──► recorder, watch ──► a new replay
"""
