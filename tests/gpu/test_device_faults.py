"""Indices out of range on the GPU: nothing breaks, and the next result that is read says it."""

import pytest

import kobai
import kobai.nn.functional as F


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (lambda w, i: kobai.embedding(w, i), "embedding: expected indices in [0, 3], got 9"),
        (lambda w, i: w.gather(0, i[:, None]), "gather: expected indices in [0, 3], got 9"),
        (lambda w, i: w.index_add(0, i, w[:2]), "index_add: expected indices in [0, 3], got 9"),
        (lambda w, i: F.cross_entropy(w[:2], i), "cross_entropy: expected class indices in [0, 4), got 9"),
        (lambda w, i: F.nll_loss(w[:2], i), "nll_loss: expected class indices in [0, 4), got 9"),
    ],
)
@pytest.mark.parametrize("captured", [False, True])
def test_the_next_result_says_what_was_out_of_range(operation, message, captured):
    if captured and not kobai.cuda.cublaslt.is_available():
        pytest.skip("needs nvmath-python")
    kobai.use("cupy")
    w = kobai.randn(4, 4, requires_grad=True)

    def step(i):
        w.grad = None
        loss = operation(w, i).sum()
        loss.backward()
        return loss

    run = kobai.capture(step) if captured else step
    right = kobai.tensor([0, 3])
    for _ in range(3):
        wanted = run(right).item()
    loss = run(kobai.tensor([0, 9]))
    with pytest.raises(IndexError) as caught:
        loss.item()
    assert message in str(caught.value)
    assert run(right).item() == pytest.approx(wanted)
