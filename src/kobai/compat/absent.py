"""What PyTorch has and Kobai deliberately lacks: the error for such a name says what to do instead."""

INSTEAD = {
    "compile": "call the model itself, or record a training step once with kobai.capture",
    "jit": "call the model itself; to save one, save model.state_dict()",
    "sparse sparse_coo_tensor sparse_csr_tensor": "use dense tensors, or index_add and scatter_add",
    "complex complex64 complex128 cfloat cdouble view_as_complex view_as_real": "use two tensors, for real and imaginary parts",
    "polar": "use two tensors, r cos φ and r sin φ",
    "fft": "its results are complex, which Kobai lacks; use numpy.fft on tensor.numpy()",
    "stft": "its results are complex, which Kobai lacks; use a signal library on tensor.numpy()",
    "istft": "its input is complex, which Kobai lacks; use a signal library on tensor.numpy()",
    "vmap": "write the operation for a whole batch",
    "distributed": "Kobai trains in one process",
    "multiprocessing": "Kobai trains in one process; DataLoader(num_workers=...) loads data in threads",
    "quantization ao": "use float32, float16 or bfloat16",
    "onnx": "save model.state_dict() as safetensors instead",
    "hub": "load a state_dict saved as safetensors instead",
    "profiler": "use Python's cProfile, or time.perf_counter() after kobai.cuda.synchronize()",
    "channels_last": "images are (N, C, H, W) throughout",
}
"""Names of ``torch`` -> what to do instead."""

ABSENT = {name: advice for names, advice in INSTEAD.items() for name in names.split()}
