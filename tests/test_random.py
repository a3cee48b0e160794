"""Seeds and states: same seed, same numbers, on every backend and after every restart."""

from __future__ import annotations

import json

import numpy as np
import pytest

import kobai
from kobai import Generator
from kobai.random import default_generator, resolve

DRAWS = {
    "rand": lambda g: kobai.rand(5, generator=g),
    "randn": lambda g: kobai.randn(2, 3, generator=g),
    "randint": lambda g: kobai.randint(0, 100, (5,), generator=g),
    "randperm": lambda g: kobai.randperm(10, generator=g),
    "normal": lambda g: kobai.normal(1.0, 2.0, (4,), generator=g),
    "bernoulli": lambda g: kobai.bernoulli(kobai.full((9,), 0.5), generator=g),
    "multinomial": lambda g: kobai.multinomial(kobai.ones(9), 5, generator=g),
    "uniform_": lambda g: kobai.zeros(4).uniform_(-1, 1, generator=g),
    "exponential_": lambda g: kobai.zeros(4).exponential_(2.0, generator=g),
}
every_draw = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)


@every_draw
def test_same_seed_same_numbers(draw):
    first, again = (draw(Generator().manual_seed(3)).tolist() for _ in range(2))
    assert first == again
    assert draw(Generator().manual_seed(4)).tolist() != first


@every_draw
def test_same_numbers_on_every_backend(draw, backend):
    there = draw(Generator().manual_seed(3))
    with kobai.using("numpy"):
        assert draw(Generator().manual_seed(3)).tolist() == there.tolist()


@every_draw
def test_a_state_continues_exactly_after_json(draw):
    g = Generator(seed=5)
    draw(g)
    g.take_blocks(7)
    state = json.loads(json.dumps(g.get_state()))
    wanted = [draw(g).tolist() for _ in range(3)]
    other = Generator()
    other.set_state(state)
    assert [draw(other).tolist() for _ in range(3)] == wanted
    assert (other.counter, other.key, other.initial_seed()) == (7, g.key, 5)


def test_a_state_is_a_copy():
    g = Generator(seed=1)
    state = g.get_state()
    before = json.dumps(state)
    kobai.rand(3, generator=g)
    assert json.dumps(state) == before


@every_draw
def test_the_default_generator_is_used_without_one(draw):
    kobai.manual_seed(11)
    wanted = draw(None).tolist()
    assert kobai.initial_seed() == 11
    assert draw(Generator(seed=11)).tolist() == wanted
    state = kobai.get_rng_state()
    after = draw(None).tolist()
    kobai.set_rng_state(state)
    assert draw(None).tolist() == after


def test_a_generator_of_ones_own_leaves_the_default_alone():
    state = kobai.get_rng_state()
    kobai.rand(3, generator=Generator(seed=1))
    assert kobai.get_rng_state() == state


def test_a_new_generator_starts_from_a_fixed_seed_and_seed_draws_another():
    assert Generator().initial_seed() == Generator().initial_seed()
    g = Generator()
    assert g.seed() == g.initial_seed()
    assert g.seed() != g.seed()
    assert kobai.seed() == kobai.initial_seed()
    assert kobai.manual_seed(3) is default_generator


def test_near_by_seeds_and_streams_are_unrelated():
    keys = {tuple(Generator(seed=s).key) for s in range(100)}
    assert len(keys) == 100
    draws = np.array([Generator(seed=s).numpy.random(50) for s in range(100)])
    assert abs(np.corrcoef(draws) - np.eye(100)).max() < 0.7


def test_seeds_wrap():
    assert Generator(seed=-1).initial_seed() == 2**64 - 1
    assert Generator(seed=np.int64(5)).initial_seed() == 5


def test_blocks_are_reserved_in_turn():
    g = Generator()
    assert [g.take_blocks(n) for n in (3, 0, 5)] == [0, 3, 3]
    assert g.counter == 8


@pytest.mark.parametrize("seed", ["1", 1.0, None, True])
def test_wrong_seeds(seed):
    with pytest.raises(TypeError, match="manual_seed: expected an integer"):
        Generator().manual_seed(seed)


@pytest.mark.parametrize("state", [None, {}, {"seed": 1}, [1]])
def test_wrong_states(state):
    with pytest.raises(TypeError, match="set_state: expected a dict made by get_state"):
        Generator().set_state(state)


def test_wrong_generator():
    with pytest.raises(TypeError, match=r"generator: expected a kobai.Generator, got Generator"):
        kobai.rand(2, generator=np.random.default_rng(0))
    assert resolve(None) is default_generator
