"""What a server can do wrong: a switch each, all of them off at first."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Traps:
    """What a FakeServer does wrong. Probabilities are of one token, log probabilities in nats."""

    # --- log probabilities
    # of draws: those of the law after temperature and truncation (a flag of vLLM, no fault)
    processed_logprobs: bool = False
    decoding_noise: float = 0.0  # nats, standard deviation: draws' log p against scores
    batch_noise: float = 0.0  # nats, standard deviation: with a row's neighbours and its place
    offset: float = 0.0  # nats that are added to every log p
    shifted: bool = False  # the log p of a prompt's token stands at the token behind it
    hides_end: bool = False  # a text's end token is not returned
    end_unscored: bool = False  # the end token is returned, its log p is 0
    unscored_prompts: bool = False  # a prompt's log p are asked for, and there are none
    # no log p for what an earlier prompt began with as well, in whole blocks of so many tokens
    stale_block: int | None = None
    mask_unscored: bool = False  # draws under a mask have the log p that they have without it
    # --- draws
    default_top_p: float = 1.0  # where a request says nothing: the model's generation_config.json
    forced_top_p: float = 1.0  # whatever a request says
    forced_temperature: float = 1.0  # whatever a request says
    never_below: float = 0.0  # tokens of smaller probability are never drawn: coarse noise
    seeds_ignored: bool = False
    seeds_moved: bool = False  # by the neighbours that a row has
    # --- what is asked for
    ignored: frozenset[str] = frozenset()  # fields of a request that are passed over in silence
    inactive_adapters: bool = False  # an adapter's name gets the base model's answers
    # --- texts
    empty_turn: bool = False  # a conversation that is tokenised gets an empty turn at its end
    strips_spaces: bool = False  # a text that is tokenised loses the space at its beginning
    doubles_beginning: bool = False  # a prompt of tokens gets the beginning of texts once more
    clips: bool = False  # a prompt beyond the window loses its beginning
    claimed_window: int | None = None  # tokens, in place of the true window
    # --- the server
    dies_after: int | None = None  # so many answers to /v1/completions
    fails_every: int | None = None  # of so many requests to /v1/completions, the last gets a 500
    slow: float = 0.0  # seconds before every answer

    @property
    def looks_around(self) -> bool:
        """Whether what is wrong hangs on a row's neighbours."""
        return self.seeds_moved or self.batch_noise > 0
