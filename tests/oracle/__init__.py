"""PyTorch's own databases of tests (OpInfo, ModuleInfo, OptimizerInfo) put to Kobai.

PyTorch makes each sample. It is computed by both, and what they give is compared: values, shapes, dtypes, gradients, shared
memory, refusals. Where they differ the difference must stand in ``known.toml`` with its reason, and where they have ceased to
differ it must no longer stand there. ``python tests/oracle/known.py`` prints the table as it should be.
"""

import warnings

import pytest

pytest.importorskip("torch", reason="PyTorch is the oracle: pip install torch")
for package in ("expecttest", "hypothesis"):
    pytest.importorskip(package, reason=f"PyTorch's databases of tests import it: pip install {package}")

with warnings.catch_warnings():  # of their imports
    warnings.simplefilter("ignore")
    import torch.testing._internal.common_methods_invocations
    import torch.testing._internal.common_modules
    import torch.testing._internal.common_optimizers

    # These modules forbid setting torch.backends' switches for the rest of the process; programs beside them set some.
    torch.backends.flags_frozen.__globals__["__allow_nonbracketed_mutation_flag"] = True
