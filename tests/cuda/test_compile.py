"""Every CUDA kernel is compiled, for every dtype and for four generations of devices, by the compiler that CuPy uses."""

import nvrtc
import pytest

from kernel_checks import DTYPES
from kobai.engine.cuda_kernel import DEVICE, KERNELS, OPTIONS, PRELUDE, types

pytestmark = pytest.mark.thorough

ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_100")  # Turing, Ampere, Hopper, Blackwell
OPTIMISED = {("float32", "sm_75"), ("float32", "sm_100")}  # which takes four times as long as compiling without

needs_nvrtc = pytest.mark.skipif(nvrtc.library() is None, reason="needs NVRTC: pip install 'kobai[cuda-proof]'")


def together(dtype, on_device):
    """All kernels for one dtype as one source, each in a namespace of its own; errors name the kernel and the line in it.

    ``on_device``: those that take the host's numbers once more, in the form that reads them from an array.
    """
    parts = [f'#line 1 "prelude"\n{DEVICE}{PRELUDE}']
    names = []
    for kernel in KERNELS.values():
        numbers = tuple(p.name for p in kernel.parameters if p.count)
        for form in [(), numbers] if numbers and on_device else [()]:
            if dtype in kernel.dtypes:
                names.append(kernel.symbol(dtype, form))
                parts.append(f"namespace of_{names[-1]} {{\n{types(dtype)}")
                parts.append(f'#line 1 "{names[-1]}"\n{kernel.prelude}{kernel.function(dtype, form)}}}')
    return "\n".join(parts), names


def compiled(dtype, architecture):
    """The names in a source, and its machine code."""
    optimised = (dtype, architecture) in OPTIMISED
    source, names = together(dtype, on_device=not optimised)
    return names, nvrtc.cubin(source, architecture, OPTIONS if optimised else (*OPTIONS, "--device-debug"))


@pytest.mark.few(dtype="float32")
@needs_nvrtc
@pytest.mark.parametrize(
    "architecture", [ARCHITECTURES[0], *(pytest.param(a, marks=pytest.mark.thorough) for a in ARCHITECTURES[1:])]
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_kernel_compiles(dtype, architecture):
    names, code = compiled(dtype, architecture)
    assert code[:4] == b"\x7fELF"
    for name in names:
        assert f".text.{name}\0".encode() in code


@needs_nvrtc
def test_a_mistake_is_found_and_named():
    with pytest.raises(RuntimeError, match=r'scale\(1\): error: identifier "nothing" is undefined'):
        nvrtc.cubin(f'{DEVICE}{PRELUDE}\n#line 1 "scale"\n__global__ void f(float* x) {{ x[0] = nothing; }}', "sm_90")
