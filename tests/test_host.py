"""``torch.cpu`` under its name: the same answers as PyTorch's."""

import importlib

import pytest

import kobai

QUESTIONS = {
    "is_available": lambda m: m.is_available(),
    "device_count": lambda m: m.device_count(),
    "current_device": lambda m: m.current_device(),
    "synchronize": lambda m: m.synchronize(),
    "set_device": lambda m: m.set_device("cpu"),
    "is_initialized": lambda m: m.is_initialized(),
    "stream": lambda m: m.current_stream().wait_stream(m.Stream()),
}


@pytest.mark.oracle
@pytest.mark.parametrize("name", QUESTIONS)
def test_answers_as_pytorch(name):
    torch = importlib.import_module("torch")
    assert QUESTIONS[name](kobai.cpu) == QUESTIONS[name](torch.cpu)


def test_a_program_asks_the_module_of_its_device():
    module = kobai.get_device_module("cpu")
    assert module is kobai.cpu
    assert kobai.get_device_module("cuda") is kobai.cuda
    assert module.device_count() == 1
    with module.stream(module.current_stream()):
        module.synchronize()
    with pytest.raises(AttributeError, match=r"kobai\.cpu"):
        _ = module.no_such_name
    assert kobai.cuda.memory_cached is kobai.cuda.memory_reserved
