"""Kernels made from one formula: a scalar Python function, run as NumPy calls, as a loop that Numba compiles, or as CUDA C.

``parse`` reads the function; ``numpy_code``, ``loop_code`` and ``cuda_code`` each write it for their engine; ``scalar`` has the
functions that may stand in it. ``elementwise`` makes a kernel over arrays of it, ``many`` one over many arrays at once.
"""
