"""Tokenizers of every kind: the bytes of their tokens, texts read as they stand behind a context, and what is said."""

import tiny
from tokenizers import decoders

import lmppl
from lmppl.data import Row
from lmppl.driver import Request, run


def test_what_a_tokenizer_cannot_guide_is_said():
    """A decoder of WordPiece puts spaces between words: no token has bytes of its own."""
    model = tiny.model(decoder=decoders.WordPiece())
    assert model.token_bytes is None
    text = 'lm LM = "x"\nZ ~ LM(" a") max 2 tokens\nconstrain contains(Z, "a")\nconstrain tokens(Z) > 0'
    request = Request("importance", {"chains": 1, "num_samples": 50})
    row = run(lmppl.compile(text).program, [Row({}, {})], {"LM": model}, request).rows[0]
    assert [warning for warning in row.warnings if "this tokenizer" in warning] == [
        "nothing guides the draws to what line 3 asks for: "
        "the text of a token of this tokenizer depends on the tokens beside it"
    ]
