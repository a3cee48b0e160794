"""Every CUDA kernel is compiled, for every dtype and for four generations of devices, by the compiler that CuPy uses."""

import itertools

import nvrtc
import pytest

from kernel_checks import DTYPES
from kobai.cuda.kernel import DEVICE, KERNELS, OPTIONS, PRELUDE, types

ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_100")  # Turing, Ampere, Hopper, Blackwell

needs_nvrtc = pytest.mark.skipif(nvrtc.library() is None, reason="needs NVRTC: pip install 'kobai[cuda-proof]'")


def together(dtype):
    """All kernels for one dtype as one source, each in a namespace of its own; errors name the kernel and the line in it."""
    parts = [f'#line 1 "prelude"\n{DEVICE}{PRELUDE}']
    names = []
    for kernel in KERNELS.values():
        if dtype not in kernel.dtypes:
            continue
        numbers = [p.name for p in kernel.parameters if p.count]
        for on_device in itertools.islice(dict.fromkeys([(), tuple(numbers)]), 2):
            names.append(kernel.symbol(dtype, on_device))
            parts.append(f"namespace of_{names[-1]} {{\n{types(dtype)}")
            parts.append(f'#line 1 "{names[-1]}"\n{kernel.prelude}{kernel.function(dtype, on_device)}}}')
    return "\n".join(parts), names


@needs_nvrtc
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_kernel_compiles(dtype, architecture):
    source, names = together(dtype)
    if not names:
        pytest.skip(f"no kernel for {dtype}")
    code = nvrtc.cubin(source, architecture, OPTIONS)
    assert code[:4] == b"\x7fELF"
    for name in names:
        assert f".text.{name}\0".encode() in code


@needs_nvrtc
def test_a_mistake_is_found_and_named():
    with pytest.raises(RuntimeError, match=r'scale\(1\): error: identifier "nothing" is undefined'):
        nvrtc.cubin(f'{DEVICE}{PRELUDE}\n#line 1 "scale"\n__global__ void f(float* x) {{ x[0] = nothing; }}', "sm_90")
