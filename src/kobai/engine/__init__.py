"""How code that is not Python is made and started, on the host by Numba and on a device by NVRTC.

``dispatch`` compiles loops, says which engine runs, and is the one door through which kernels are launched; ``cuda_kernel``
compiles CUDA C; ``disk_cache`` keeps machine code, and ``notices`` tells whoever waits for it. ``domains`` and ``faults`` look
at values on their way. ``exponential``, ``logarithm`` and ``special`` are functions of one number for compiled loops.
"""
