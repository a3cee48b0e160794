"""A training step recorded once and replayed: what ``kobai.capture`` gives (there it is the function; here are its parts).

``step`` is the function users call. ``session`` records one call of it: on the host as a flat program over memory that stays
where it is (``arrays``, ``recorder``, ``memory``, and ``numpy_calls`` for what NumPy's functions do), on a CUDA device as a
graph (``graph``); ``rules`` says what may be in it. ``watch`` notices what would make the record stale (``reads``: code,
``kinds``: objects, ``walk``: from one to the other, ``guards``: what is compared), and ``audit`` compares replays with eager
calls::

    call ──► step ──► guards hold? ── yes ──► replay                            (recorder.Program, graph.Graph)
                          │ no
                          └──► session: the step, run as it is under rules ──► recorder, watch ──► a new replay
"""
