"""Laws of language models: one function each, of the model and of how near numbers have to be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import torch

from lmppl.errors import LmpplError
from lmppl.lm import Capability, LanguageModel, Tokens, nothing
from lmppl.testing.chance import require_near

NEAR = 1e-4  # nats by which two ways to the same log probability may differ
LENGTHS = (6, 3, 5, 0)  # tokens of the texts that are looked at
SEED = 7
DRAWS = 400  # texts whose frequencies are looked at
LARGEST = 4096  # windows up to this are filled, to see that no more goes in


def adds_up_to_one(model: LanguageModel, near: float = NEAR) -> None:
    """Every law of a next token is V probabilities of sum 1."""
    if _tells_laws(model):
        prompt, texts = _texts(model)
        law = _numbers(model.stream(prompt, texts).log_probs())
        assert law.shape == (len(texts), model.vocabulary_size)
        np.testing.assert_allclose(np.exp(law).sum(-1), 1, atol=near)


def scores_laws_and_streams_agree(model: LanguageModel, near: float = NEAR) -> None:
    """A token's score is its place in the law before it, and a stream that grows has that law."""
    if not _tells_laws(model):
        return
    prompt, texts = _texts(model)
    starts = [min(1, len(text)) for text in texts]
    scores = model.score(prompt, texts, starts)
    laws = model.laws(prompt, texts, starts)
    for text, start, score, law in zip(texts, starts, scores, laws, strict=True):
        stream = model.stream(prompt, [text[:start]])
        grown = []
        for token in text[start:]:
            grown.append(_numbers(stream.log_probs())[0])
            model.push([stream], [np.array([token])])
        own = list(range(len(text) - start))
        tokens = list(text[start:])
        np.testing.assert_allclose(_numbers(law)[own, tokens], score, atol=near)
        if own:
            np.testing.assert_allclose(np.stack(grown)[own, tokens], score, atol=near)
            np.testing.assert_allclose(np.exp(grown), np.exp(_numbers(law)), atol=near)


def rows_do_not_hang_on_their_neighbours(model: LanguageModel, near: float = NEAR) -> None:
    """What is scored together is what is scored alone, and behind several prompts at once."""
    prompt, texts = _texts(model)
    starts = [0] * len(texts)
    alone = [model.score(prompt, [text], [0])[0] for text in texts]
    other = (*prompt, *texts[0])
    asked = [(prompt, [(text, 0) for text in texts]), (other, [(texts[1], 0)])]
    both = model.score_all(asked)
    for together in (model.score(prompt, texts, starts), both[0]):
        for one, score in zip(alone, together, strict=True):
            np.testing.assert_allclose(one, score, atol=near)
    behind = model.score(prompt, [(*texts[0], *texts[1])], [len(texts[0])])[0]
    np.testing.assert_allclose(both[1][0], behind, atol=near)


def prefixes_are_scored_as_texts(model: LanguageModel, near: float = NEAR) -> None:
    """Closed after each of its tokens, a text is scored as each of these texts by itself."""
    prompt, texts = _texts(model)
    found = model.score_prefixes(prompt, texts, [0] * len(texts))
    for text, (own, closing) in zip(texts, found, strict=True):
        assert (len(own), len(closing)) == (len(text), len(text) + 1)
        for length in range(len(text) + 1):
            whole = model.score(prompt, [(*text[:length], model.end)], [0])[0]
            expected = [*own[:length], closing[length]]
            np.testing.assert_allclose(expected, whole, atol=near)


def trees_are_scored_as_rows(model: LanguageModel, near: float = NEAR) -> None:
    """What texts have in common may be run once; their scores stay."""
    prompt, texts = _texts(model)
    first = texts[0]
    group = [(first[:4], 0), ((*first[:2], *texts[1]), 2), (first, 1), ((), 0)]
    (found,) = model.score_trees(prompt, [group])
    scores = model.score(prompt, [row for row, _ in group], [start for _, start in group])
    np.testing.assert_allclose(found, [score.sum() for score in scores], atol=near)


def streams_are_cut_and_joined(model: LanguageModel, near: float = NEAR) -> None:
    """Rows that are kept, taken out, resumed and put together go on as they were."""
    if not _tells_laws(model):
        return
    prompt, texts = _texts(model)
    rows = texts[:3]
    expected = {row: _numbers(model.stream(prompt, [row]).log_probs())[0] for row in rows}
    stream = model.stream(prompt, rows)
    stream.keep(np.array([2, 0, 2]))
    kept = [rows[2], rows[0], rows[2]]
    _assert_laws(_numbers(stream.log_probs()), [expected[row] for row in kept], near)
    if not stream.joins:
        return
    short = model.stream(prompt, [row[:-1] for row in kept])
    short.push(np.array([row[-1] for row in kept]))
    resumed = model.resume(prompt, short.take([1]), [len(kept[1]) - 1])
    resumed.push(np.array([kept[1][-1]]))
    other = model.stream(prompt, [rows[1][:-1]])
    other.push(np.array([rows[1][-1]]))
    resumed.join(other)
    laws = [expected[kept[1]], expected[rows[1]]]
    _assert_laws(_numbers(resumed.log_probs()), laws, near)


def draws_are_scored_as_texts(model: LanguageModel, near: float = NEAR) -> None:
    """What a model says of its draws is what it says of these texts, and a draw hangs on its seed
    alone.
    """
    if not _draws(model):
        return
    prompt, texts = _texts(model)
    seeds, most = list(range(len(texts))), max(LENGTHS)
    drawn = model.sample(prompt, texts, seeds, most)
    for text, seed, one in zip(texts, seeds, drawn, strict=True):
        assert len(one.tokens) == most or one.tokens[-1] == model.end
        assert 0 < len(one.tokens) <= most
        assert model.end not in one.tokens[:-1], "nothing comes behind the end"
        score = model.score(prompt, [(*text, *one.tokens)], [len(text)])[0]
        np.testing.assert_allclose(one.log_probs, score, atol=near)
        assert model.sample(prompt, [text], [seed], most)[0].tokens == one.tokens
    other = model.sample(prompt, texts, [seed + 10**6 for seed in seeds], most)
    assert [one.tokens for one in drawn] != [one.tokens for one in other]
    until = model.decode(drawn[0].tokens[:1])
    short = model.sample(prompt, texts[:1], seeds[:1], most, until)[0].tokens
    assert short == drawn[0].tokens[: len(short)], "`until` changes no token"


def draws_follow_the_model(model: LanguageModel, near: float = NEAR) -> None:
    """Draws of one and of two tokens come as often as their scores say, as far as texts are few."""
    if not _draws(model):
        return
    prompt, _ = _texts(model)
    for length in (1, 2):
        if model.vocabulary_size**length > LARGEST:
            continue
        rows = _texts_up_to(model, length)
        scores = model.score(prompt, rows, [0] * len(rows))
        law = {row: float(np.exp(score.sum())) for row, score in zip(rows, scores, strict=True)}
        seeds = range(DRAWS)
        drawn = model.sample(prompt, [()] * DRAWS, seeds, length)
        counts = Counter(one.tokens for one in drawn)
        possible = {row: value for row, value in law.items() if value > 0}
        found = {row: count / DRAWS for row, count in counts.items()}
        require_near(possible, found, DRAWS, f"texts of {length} tokens")


def work_is_counted(model: LanguageModel, near: float = NEAR) -> None:
    """A pass is counted with its tokens, and who watches may forbid it before it is run."""
    prompt, texts = _texts(model)
    spent = []
    for _ in range(2):
        model.forget_prompts()
        before = model.cost.tokens_scored, model.cost.forward_passes
        model.score(prompt, texts, [0] * len(texts))
        after = model.cost.tokens_scored, model.cost.forward_passes
        spent.append((after[0] - before[0], after[1] - before[1]))
    assert spent[0] == spent[1], "the same work costs the same"
    assert min(spent[0]) > 0
    passes = model.cost.forward_passes
    model.forget_prompts()
    model.cost.watch = _refuse
    try:
        model.score(prompt, texts, [0] * len(texts))
    except _Refused:
        assert model.cost.forward_passes == passes, "what was refused is not counted"
    else:
        raise AssertionError("cost.watch is called before a pass: by cost.begin_pass()")
    finally:
        model.cost.watch = nothing


def texts_are_read_as_they_are_written(model: LanguageModel, near: float = NEAR) -> None:
    """What a model writes survives being written and read again, and its tokens are their bytes."""
    _, texts = _texts(model)
    for tokens in texts:
        inner = [token for token in tokens if token != model.end]
        text = model.decode(inner)
        assert len(model.pieces(tokens)) == len(tokens)
        if "�" not in text:
            assert model.decode(model.encode(text, markers=False)) == text
        if model.token_bytes is not None:
            assert len(model.token_bytes) == model.vocabulary_size
            joined = b"".join(model.token_bytes[token] for token in inner)
            assert joined.decode("utf-8", "replace") == text
    begun = model.begin(())
    assert len(begun) == 1, "an empty context has one token"
    assert model.begin(begun) == begun, "a beginning is put in front once"


def no_more_goes_in_than_the_window_holds(model: LanguageModel, near: float = NEAR) -> None:
    """Beyond its window a model refuses, where others would cut in silence."""
    if model.window > LARGEST:
        return
    prompt, texts = _texts(model)
    filling = (texts[0] * model.window)[: model.window - len(prompt) + 2]
    try:
        model.score(prompt, [filling], [0])
    except LmpplError:
        return
    raise AssertionError(f"scored {len(prompt) + len(filling)} tokens in {model.window}")


def the_end_can_come(model: LanguageModel, near: float = NEAR) -> None:
    """The end is a token of the vocabulary, and other ends have given it their probability."""
    prompt, texts = _texts(model)
    assert 0 <= model.end < model.vocabulary_size
    rows = [(*text, model.end) for text in texts]
    scores = model.score(prompt, rows, [len(text) for text in texts])
    assert all(not np.isnan(score).any() and (score <= near).all() for score in scores)
    assert any(np.isfinite(score).all() for score in scores), "no text could end"


language_model_laws: Sequence[Callable[..., None]] = (
    adds_up_to_one,
    scores_laws_and_streams_agree,
    rows_do_not_hang_on_their_neighbours,
    prefixes_are_scored_as_texts,
    trees_are_scored_as_rows,
    streams_are_cut_and_joined,
    draws_are_scored_as_texts,
    draws_follow_the_model,
    work_is_counted,
    texts_are_read_as_they_are_written,
    no_more_goes_in_than_the_window_holds,
    the_end_can_come,
)


class _Refused(Exception):
    """What the watch of a test raises."""


def _refuse() -> None:
    raise _Refused


def _tells_laws(model: LanguageModel) -> bool:
    return Capability.LAWS in model.capabilities


def _draws(model: LanguageModel) -> bool:
    return Capability.DRAWS in model.capabilities


def _texts_up_to(model: LanguageModel, length: int) -> list[Tokens]:
    """All texts of so many tokens, and shorter ones that the end token ends."""
    found: list[Tokens] = []
    growing: list[Tokens] = [()]
    for _ in range(length):
        grown = [(*text, token) for text in growing for token in range(model.vocabulary_size)]
        found += [text for text in grown if text[-1] == model.end]
        growing = [text for text in grown if text[-1] != model.end]
    return found + growing


def _texts(model: LanguageModel) -> tuple[Tokens, list[Tokens]]:
    """A prompt, and texts as the model writes them, their ends left out; of any tokens where it
    tells no laws.
    """
    prompt = model.begin(())
    rng = np.random.default_rng(SEED)
    texts: list[Tokens] = []
    for length in LENGTHS:
        text: Tokens = ()
        while len(text) < length:
            text = (*text, _next(model, prompt, text, rng))
        texts.append(text)
    return prompt, texts


def _next(model: LanguageModel, prompt: Tokens, text: Tokens, rng: np.random.Generator) -> int:
    if not _tells_laws(model):
        return int(rng.integers(model.vocabulary_size))
    law = np.exp(_numbers(model.stream(prompt, [text]).log_probs())[0])
    law[model.end] = 0
    return int(rng.choice(len(law), p=law / law.sum())) if law.sum() > 0 else model.end


def _numbers(law: torch.Tensor) -> np.ndarray:
    return law.double().cpu().numpy()


def _assert_laws(found: np.ndarray, expected: Sequence[np.ndarray], near: float) -> None:
    np.testing.assert_allclose(np.exp(found), np.exp(np.stack(expected)), atol=near)
