"""The smallest whole training. Start here: this is all that a training is."""

import kobai
from kobai import nn, optim


def test_a_line_is_found_by_gradients_alone():
    """y = 3x + 1 from eleven points: predict, measure the error, differentiate, step downhill."""
    x = kobai.linspace(-1, 1, 11)
    y = 3 * x + 1

    slope = kobai.tensor(0.0, requires_grad=True)
    intercept = kobai.tensor(0.0, requires_grad=True)
    for _ in range(100):
        loss = ((slope * x + intercept - y) ** 2).mean()
        loss.backward()
        with kobai.no_grad():
            for parameter in (slope, intercept):
                parameter -= 0.5 * parameter.grad
                parameter.grad = None

    assert abs(slope.item() - 3) < 1e-4
    assert abs(intercept.item() - 1) < 1e-4


def test_a_small_network_learns_xor():
    """No line separates these four points; one hidden layer does."""
    kobai.manual_seed(0)
    x = kobai.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    y = kobai.tensor([[0.0], [1.0], [1.0], [0.0]])

    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = optim.Adam(model.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(model(x), y)
        loss.backward()
        optimizer.step()

    assert ((model(x) > 0) == (y > 0.5)).all()
