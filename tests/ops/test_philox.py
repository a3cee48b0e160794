"""The counter stream: published answers, NumPy's own generator, one stream on every backend."""

import numpy as np
import pytest

import strict  # noqa: F401 - registers the backend
from kobai import xp
from kobai.ops.dropout.philox import blocks_for, philox_bits, philox_rounds

ONES = 2**64 - 1
# "philox4x64 10" of kat_vectors in Random123 1.14: counter, key, result
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B)),
    (
        (ONES, ONES, ONES, ONES),
        (ONES, ONES),
        (0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0),
    ),
    (
        (0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89),
        (0x452821E638D01377, 0xBE5466CF34E90C6C),
        (0xA528F45403E61D95, 0x38C72DBD566E9788, 0xA5A1610E72FD18B5, 0x57BD43B5E52B7FE6),
    ),
]
DEVICE = xp.asarray(np.zeros(1), device="strict")


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_known_answers(counter, key, result):
    words = philox_rounds([np.array([c], np.uint64) for c in counter], [np.array([k], np.uint64) for k in key])
    assert tuple(int(w[0]) for w in words) == result


@pytest.mark.parametrize("first", [0, 1, 12345, 2**32 - 2, 2**63])
@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 1000])
def test_both_ways_agree_bit_for_bit(n, first):
    key = [0x0123456789ABCDEF, 0xFEDCBA9876543210]
    host = philox_bits(n, (first, *key), np.zeros(1))
    device = philox_bits(n, (first, *key), DEVICE)
    assert host.dtype == np.uint32
    assert host.shape == (n,)
    np.testing.assert_array_equal(host, xp.to_host(device))


def test_block_zero_is_the_known_answer():
    words = philox_bits(8, (0, 0, 0), np.zeros(1)).view(np.uint64)
    assert tuple(int(w) for w in words) == KNOWN[0][2]


def test_a_block_does_not_depend_on_where_the_stream_began():
    key = 3, 4
    whole = philox_bits(64, (10, *key), np.zeros(1))
    np.testing.assert_array_equal(philox_bits(24, (13, *key), np.zeros(1)), whole[24:48])


def test_blocks_for():
    assert [blocks_for(n) for n in (0, 1, 8, 9, 16)] == [0, 1, 1, 2, 2]


def test_bits_look_random():
    bits = philox_bits(100_000, (0, 1, 2), np.zeros(1))
    share = np.unpackbits(bits.view(np.uint8)).mean()
    assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(32 * 100_000)
    assert abs((bits / 2**32).mean() - 0.5) < 4 / np.sqrt(12 * 100_000)
