"""From where on a number is wrong, and why."""

from __future__ import annotations

from typing import NamedTuple


class Levels(NamedTuple):
    """A check passes up to the first number, warns up to the second, and fails beyond."""

    passes: float
    warns: float


# Nats a token, root mean square, by which two ways to one log probability differ. Errors add up
# along a text: at .001 a text of a hundred tokens is off by .01 to .1 nats, less than a run's own
# error; float32 has 4e-5. At .1 the log weight of such a text is off by a nat, and half of all
# weights are noise; bfloat16 has .03 to .1.
NATS = Levels(1e-3, 0.1)

# Nats above zero: rounding in float32, and what no rounding gives.
ABOVE_ZERO = Levels(1e-4, 1e-2)

# How far the probabilities of all next tokens are from a sum of one: rounding; and what moves log
# weights by more than the level above.
SUM = Levels(1e-3, 1e-2)

# Share of values that are not there, or not as they were: one is too many.
SHARE = Levels(0.0, 0.0)

# Share of rows whose tokens are others beside neighbours. Where probabilities are rounded, a token
# may fall on the other side of a random number: rows differ now and then, and weights stay right.
MOVED = Levels(0.0, 0.25)

# Surprise of draws, −log10 of the probability that true draws are as far from their law: one in a
# hundred is no news where several checks look; one in ten thousand is.
SURPRISE = Levels(2.0, 4.0)

# Standard errors between two estimates of one number: the same chances, of a normal law.
ERRORS = Levels(3.0, 4.0)

# Nats a token, root mean square, that an adapter moves log probabilities by. Rounding alone moves
# them by less than this; a trained adapter by more.
LEAST_MOVE = 1e-5

# As above, of what lmppl can do without: it never fails.
SHARE_HELPS = Levels(0.0, 1.0)
