"""Random numbers are keyed: what they are for tells them apart, and nothing else changes them."""

from enum import unique
from itertools import pairwise

import numpy as np

from lmppl.decoding import Purpose, Randomness

APART = 1_000_000  # parts that a purpose may have: pairs of rungs, observations


def test_every_purpose_has_a_number_of_its_own():
    assert unique(Purpose) is Purpose
    assert len({int(purpose) for purpose in Purpose.__members__.values()}) == len(Purpose.__members__)


def test_purposes_with_parts_leave_room_for_them():
    numbers = sorted(Purpose)
    assert numbers[0] >= APART  # the latents' numbers lie below
    after = dict(pairwise([*numbers, numbers[-1] + APART]))
    for purpose in (Purpose.EXCHANGES, Purpose.OBSERVATIONS):
        assert after[purpose] - purpose >= APART


def test_numbers_hang_on_their_key_alone():
    one = Randomness(3, row=1)
    np.testing.assert_array_equal(one.uniforms(2, 5, Purpose.MOVES, 4)[:2], one.uniforms(2, 5, 1_000_000, 2))
    streams = [one.uniforms(2, 5, purpose, 4).tolist() for purpose in Purpose]
    others = [Randomness(3).uniforms(2, 5, 0, 4).tolist(), one.uniforms(2, 5, 0, 4).tolist()]
    assert len({tuple(stream) for stream in [*streams, *others]}) == len(streams) + 2
