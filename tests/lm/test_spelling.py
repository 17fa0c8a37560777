"""Tokenizers of every kind: the bytes of their tokens, texts read as they stand behind a context, and what is said."""

import functools
import itertools
import json
import random

import numpy as np
import pytest
import tiny
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import lmppl
from lmppl.data.rows import Row
from lmppl.decoding.masks import Masks
from lmppl.density.binding import bind
from lmppl.lm.transformers.spelling import Spelling
from lmppl.lm.transformers.vocabulary import byte_table, token_bytes
from lmppl.run import Request, run

WORDS = (" cat", " bat", "cat", " b", "at", ".", "\n", "x")
EVERY = range(256)
TEXTS = ("cat bat", " cat", "  cat. ", "cat\n\nx", "é 漢\t🙂", "▁a▁ b", "<s>", "", " ")


def spelling(form, **options):
    return Spelling(tiny.sentencepiece(WORDS, form, fallback=EVERY, **options), 0)


@pytest.fixture(params=tiny.FORMS)
def form(request):
    return request.param


# --- texts survive --------------------------------------------------------------------------------


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_read_as_it_was_written(form, text):
    found = spelling(form)
    assert found.decode(found.encode(text, markers=False)) == text
    opening = found.decode(found.encode_opening(text, markers=False))
    assert opening in (text, " " + text)


def test_random_texts_are_read_as_they_were_written(form):
    found, rng = spelling(form), random.Random(0)
    alphabet = "catb.x \n\té漢🙂▁<>0A"
    for _ in range(200):
        text = "".join(rng.choices(alphabet, k=rng.randrange(12)))
        assert found.decode(found.encode(text, markers=False)) == text


def test_random_tokens_are_read_as_their_bytes(form):
    found, rng = spelling(form), random.Random(1)
    names = {token: name for name, token in found._tokenizer.get_vocab().items()}
    assert found.token_bytes is not None
    for _ in range(200):
        tokens = rng.choices(list(names), k=6)
        spelled = [bytes([int(names[t][3:5], 16)]) if names[t].startswith("<0x") else
                   names[t].replace("▁", " ").encode() for t in tokens]  # fmt: skip
        assert found.decode(tokens) == b"".join(spelled).decode("utf-8", "replace")
        assert tuple(found.token_bytes[token] for token in tokens) == tuple(spelled)


def test_characters_come_together_from_bytes(form):
    found = spelling(form)
    tokens = found.encode("é", markers=False)
    assert [found.piece(token) for token in tokens] == ["<0xC3>", "<0xA9>"]
    assert [found.decode(tokens[:length]) for length in (1, 2)] == ["\ufffd", "é"]


# --- pieces of a longer text ----------------------------------------------------------------------


def test_pieces_are_written_as_inside_a_longer_text(form):
    found = spelling(form)
    assert [found.piece(t) for t in found.encode("cat", markers=True)] == ["cat"]
    assert [found.piece(t) for t in found.encode(" cat bat.", markers=True)] == [" cat", " bat", "."]


OPENED = {
    "llama": {"cat": [" cat"], " cat": [" ", " cat"]},
    "mistral": {"cat": [" cat"], " cat": [" cat"]},
    "gemma": {"cat": ["cat"], " cat": [" cat"]},
    "metaspace": {"cat": [" cat"], " cat": [" cat"]},
}


def test_a_prompt_begins_as_the_tokenizer_begins_it(form):
    found = spelling(form)
    for text, pieces in OPENED[form].items():
        tokens = found.encode_opening(text, markers=True)
        assert [found.piece(token) for token in tokens] == pieces
        assert list(tokens) == found._tokenizer(text, add_special_tokens=False)["input_ids"]


def seen(form, statements, state, **givens):
    """Pieces of the context that the last statement's model sees, and those that it scores there."""
    network, chosen = tiny.build(chosen=tiny.sentencepiece(WORDS, form, fallback=EVERY))
    model = tiny.HuggingFaceModel(network, chosen)
    program = lmppl.compile(f'lm LM = "x"\n{statements}').program
    target, _ = bind(program, {"LM": model}, Row(givens, {}))
    view, factor = target.spelling.view(state), list(target._scored.values())[-1]
    context = factor.terms[0].context
    return model.pieces([*context.prompt, *context.suffix(view.texts, view.tokens)]), model.pieces(factor.tokens[0])


def test_only_the_first_text_of_a_context_is_an_opening():
    text = 'given X\nZ ~ LM("x") max 2\nobserve "cat" ~ LM("{X}cat{Z}cat")'
    assert seen("llama", text, {"Z": ()}, X="x") == ([" ", "x", "cat", "cat"], ["cat"])
    assert seen("llama", text, {"Z": ()}, X="") == ([" cat", "cat"], ["cat"])  # nothing is no text
    assert seen("gemma", text, {"Z": ()}, X="x") == (["x", "cat", "cat"], ["cat"])


def test_a_latent_is_no_opening():
    assert seen("llama", 'Z ~ LM("x") max 2\nobserve "x" ~ LM("{Z}cat")', {"Z": (2,)}) == (
        [tiny.END, "a", "cat"],
        ["x"],
    )


def test_what_is_observed_without_a_context_is_an_opening():
    assert seen("llama", 'given X\nZ ~ LM("x") max 2\nobserve X ~ LM("")', {}, X="cat") == ([tiny.END], [" cat"])
    assert seen("llama", 'given X\nZ ~ LM("x") max 2\nobserve X ~ LM(" cat")', {}, X="cat") == ([" ", " cat"], ["cat"])


def test_a_marker_at_the_beginning_stands_before_the_space():
    chosen = tiny.sentencepiece(WORDS, "llama", fallback=EVERY)
    chosen.bos_token = tiny.END
    found = Spelling(chosen, 0)
    assert [found.piece(t) for t in found.encode_opening("<end>cat<end>cat", markers=True)] == [
        "<end>", " cat", "<end>", "cat"
    ]  # fmt: skip


# --- byte-level vocabularies ----------------------------------------------------------------------


def byte_level(words=(), decoder=None, prefix=False, content=()):
    symbols = {byte: symbol for symbol, byte in byte_table().items()}
    pieces = [*symbols.values(), *("".join(symbols[byte] for byte in word.encode()) for word in words)]
    backend = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    backend.decoder = decoder or decoders.ByteLevel()
    chosen = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=tiny.END)
    chosen.add_tokens(list(content))
    return chosen


def test_byte_level_tokens_are_read_as_the_tokenizer_reads_them():
    """Whatever the bytes, those that are no character included."""
    chosen, rng = byte_level([" the", "é"]), random.Random(2)
    found = Spelling(chosen, len(chosen) + 3)
    for _ in range(500):
        tokens = rng.choices(range(len(chosen)), k=rng.randrange(1, 8))
        assert found.decode(tokens) == chosen.decode(tokens)
    assert found._inside is None  # nothing is put in front: texts are written as ever
    assert found.token_bytes[-3:] == (b"", b"", b"")


def test_a_converted_file_is_read_in_its_steps():
    steps = [decoders.ByteFallback(), decoders.Fuse(), decoders.Replace("▁", " "), decoders.ByteLevel()]
    plain = Spelling(byte_level([" the"]), 0)
    found = Spelling(byte_level([" the"], decoders.Sequence(steps)), 0)
    assert found.token_bytes == plain.token_bytes
    for text in TEXTS:
        assert found.decode(found.encode(text, markers=False)) == text


def test_a_space_in_front_of_a_byte_level_text_is_for_prompts():
    found = Spelling(byte_level(prefix=True), 0)
    assert found.decode(found.encode("cat", markers=False)) == "cat"
    assert found.decode(found.encode_opening("cat", markers=False)) == " cat"


def test_added_tokens_are_read_as_their_content():
    chosen = byte_level(content=["<é▁>"])
    found = Spelling(chosen, 0)
    assert found.decode(found.encode("a<é▁>b", markers=True)) == "a<é▁>b"
    assert len(found.encode("a<é▁>b", markers=True)) == 3


# --- other files ----------------------------------------------------------------------------------


def test_pieces_of_a_unigram_vocabulary():
    """As T5's: a space in front of every text, white space in between kept."""
    pieces = [("<unk>", 0.0), ("▁", -2.0), ("▁cat", -1.0), ("cat", -1.5), ("c", -4.0), ("a", -4.0), ("t", -4.0)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="always")
    backend.decoder = decoders.Metaspace("▁", prepend_scheme="always")
    found = Spelling(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=tiny.END, unk_token="<unk>"), 0)
    for text, expected in (("cat", [3]), (" cat", [2]), ("cat  cat", [3, 1, 2]), (" ", [1])):
        assert list(found.encode(text, markers=False)) == expected
        assert found.decode(expected) == text
    assert found.encode_opening("cat", markers=False) == (2,)


def test_markers_that_swallow_white_space_do_so_in_programs_only():
    """As Phi-3's: a line break behind a marker is part of it."""
    chosen = tiny.sentencepiece(WORDS, "llama", fallback=EVERY)
    marker = AddedToken("<|user|>", special=True, rstrip=True, normalized=False)
    chosen.add_special_tokens({"additional_special_tokens": [marker]})
    chosen.add_tokens([AddedToken("<x>", rstrip=True, normalized=False)])
    found = Spelling(chosen, 0)
    user = chosen.get_vocab()["<|user|>"]
    assert found.encode("<|user|>\ncat", markers=True) == (user, *found.encode("cat", markers=True))
    for text in ("<|user|>\ncat", "<x> cat"):
        assert found.decode(found.encode(text, markers=False)) == text


# --- what cannot be told --------------------------------------------------------------------------


UNTOLD = {
    "between tokens": decoders.WordPiece(),
    "a mark at the end": decoders.BPEDecoder("</w>"),
    "across tokens": decoders.Sequence([decoders.Fuse(), decoders.Replace("ab", "c")]),
    "bytes of the whole": decoders.Sequence([decoders.Fuse(), decoders.ByteFallback()]),
}


@pytest.mark.parametrize("name", UNTOLD)
def test_a_token_that_hangs_on_its_neighbours_has_no_bytes(name):
    assert tiny.model(decoder=UNTOLD[name]).token_bytes is None


def test_bytes_are_held_against_the_tokenizers_own_reading():
    """Steps that are not the tokenizer's are found out."""
    chosen = tiny.sentencepiece(WORDS, "llama", fallback=EVERY)
    pipeline = json.loads(chosen.backend_tokenizer.to_str())
    assert token_bytes(chosen, pipeline, 10) is not None
    pipeline["decoder"]["decoders"][0]["content"] = "_"
    assert token_bytes(chosen, pipeline, 10) is None


def test_words_that_are_marked_by_a_space_in_front_keep_it():
    """Where white space is thrown away, what is put in front of words is all that parts them."""
    backend = Tokenizer(models.BPE({"▁": 0, "a": 1, "b": 2, "▁a": 3, "▁b": 4}, [("▁", "a"), ("▁", "b")]))
    split = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace("▁", prepend_scheme="always")]
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Sequence(split), decoders.Metaspace()
    found = Spelling(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=tiny.END), 0)
    assert found.decode(found.encode(" a b", markers=False)) == " a b"


def test_spaces_at_the_borders_of_a_piece_are_kept():
    backend = Tokenizer(models.BPE({"▁": 0, "a": 1, "▁a": 2}, [("▁", "a")]))
    backend.normalizer = normalizers.Sequence([normalizers.Strip(), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Replace("▁", " ")
    found = Spelling(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=tiny.END), 0)
    assert found.encode(" a ", markers=False) == (2, 0)


def test_a_text_that_cannot_be_written_is_said():
    """Without bytes for them, characters that the vocabulary lacks are lost."""
    model = tiny.HuggingFaceModel(*tiny.build(chosen=tiny.sentencepiece(WORDS, "gemma")))
    program = lmppl.compile('lm LM = "x"\ngiven X\nZ ~ LM("x") max 9 tokens\nobserve X ~ LM("cat{Z}")').program
    for given, latent, found in (
        (" bat", "cat", []),
        (" béat", "cat", ["observe X"]),
        ("é", "caté", ["Z", "observe X"]),
    ):
        _, findings = bind(program, {"LM": model}, Row({"X": given}, {"Z": latent}))
        altered = [finding.message for finding in findings if finding.code == "altered-text"]
        assert [message.split(":")[0].strip("`") for message in altered] == found


def test_what_a_tokenizer_cannot_guide_is_said():
    """A decoder of WordPiece puts spaces between words: no token has bytes of its own."""
    model = tiny.model(decoder=decoders.WordPiece())
    text = 'lm LM = "x"\nZ ~ LM(" a") max 2 tokens\nconstrain contains(Z, "a")\nconstrain tokens(Z) > 0'
    request = Request("importance", {"chains": 1, "num_samples": 50})
    row = run(lmppl.compile(text).program, [Row({}, {})], {"LM": model}, request).rows[0]
    assert [warning for warning in row.warnings if "this tokenizer" in warning] == [
        "nothing guides the draws to what line 3 asks for: "
        "the text of a token of this tokenizer depends on the tokens beside it"
    ]


# --- masks ----------------------------------------------------------------------------------------

LANGUAGES = {
    r"/( ?(cat|bat)){1,2}\./": [
        "".join(words) + "."
        for count in (1, 2)
        for words in itertools.product(["cat", "bat", " cat", " bat"], repeat=count)
    ],
    r"/(é|漢| 🙂)\n?x/": [f"{one}{end}x" for one in ("é", "漢", " 🙂") for end in ("", "\n")],
}


@pytest.mark.parametrize("pattern", LANGUAGES)
def test_masks_leave_just_what_can_still_become_a_text(form, pattern):
    """Every token after every prefix, byte by byte: a token stays where some text of the language goes on with it."""
    model = tiny.HuggingFaceModel(*tiny.build(chosen=tiny.sentencepiece(WORDS, form, fallback=EVERY)))
    program = lmppl.compile(f'lm LM = "x"\nZ ~ LM("x") max 9\nconstrain matches(Z, {pattern})').program
    masks = bind(program, {"LM": model}, Row({}, {}))[0].text_latent("Z").masks
    language = [text.encode() for text in LANGUAGES[pattern]]
    pieces, prefixes, seen = model.token_bytes, [()], 0
    while prefixes and seen < 60:
        tokens = prefixes.pop(0)
        spelled, seen = b"".join(pieces[token] for token in tokens), seen + 1
        goes_on = [any(text.startswith(spelled + piece) for text in language) for piece in pieces]
        goes_on[model.end] = spelled in language
        assert masks.start([tokens]).allowed()[0].tolist() == goes_on, spelled
        prefixes += [(*tokens, t) for t in np.flatnonzero(goes_on) if t != model.end]


@pytest.mark.slow
def test_tokens_that_bring_a_text_nearest_to_its_end(form):
    """Of what may come next, the tokens behind which the fewest are needed; and how many a text needs by itself."""
    pattern = next(iter(LANGUAGES))
    model = tiny.HuggingFaceModel(*tiny.build(chosen=tiny.sentencepiece(WORDS, form, fallback=EVERY)))
    text = (
        f'lm LM = "x"\nZ ~ LM("x") max 9\nconstrain matches(Z, {pattern}) and (contains(Z, "b") or contains(Z, "cc"))'
    )
    masks = bind(lmppl.compile(text).program, {"LM": model}, Row({}, {}))[0].text_latent("Z").masks
    assert masks.leads
    pieces, left = model.token_bytes, [spelled.encode() for spelled in LANGUAGES[pattern] if "b" in spelled]

    @functools.cache
    def fewest(spelled):
        """Tokens behind these bytes that a text of the language needs."""
        if spelled in left:
            return 0
        longer = [spelled + piece for piece in pieces if piece and any(t.startswith(spelled + piece) for t in left)]
        return 1 + min(map(fewest, longer), default=np.inf)

    for spoken in ("", " cat", " b", "catb", " cat bat", " cat bat."):
        tokens = tuple(model.encode(spoken, markers=False))
        spelled = b"".join(pieces[token] for token in tokens)
        needed = {t: fewest(spelled + piece) for t, piece in enumerate(pieces) if piece and t != model.end}
        near = [t for t, count in needed.items() if count < np.inf and count == min(needed.values())]
        row = masks.start([tokens])
        assert np.flatnonzero(row.nearest(row.allowed())[0].numpy()).tolist() == (near or [model.end]), spelled
        assert row.needed().tolist() == [fewest(spelled)]


@pytest.mark.parametrize("grammar", [False, True])
def test_rows_have_the_masks_of_each_alone_and_those_that_are_alike_are_asked_once(grammar, monkeypatch):
    pattern = next(iter(LANGUAGES))
    model = tiny.HuggingFaceModel(*tiny.build(chosen=tiny.sentencepiece(WORDS, "gemma", fallback=EVERY)))
    if grammar:  # no table follows it
        monkeypatch.setattr("lmppl.decoding.masks._table", lambda vocabulary, grammar: None)
    program = lmppl.compile(f'lm LM = "x"\nZ ~ LM("x") max 3\nconstrain matches(Z, {pattern})').program
    masks = bind(program, {"LM": model}, Row({}, {}))[0].text_latent("Z").masks
    texts = ["", " cat", " bat", " cat", "", "cat", " cat bat"]
    kept = [tuple(model.encode(text, markers=False)) for text in texts]
    texts, kept = [*texts, " b, at"], [*kept, (*model.encode(" b", markers=False), *model.encode("at", markers=False))]
    alone, asked = [masks.start([tokens]) for tokens in kept], []
    rows, plain = masks.start(kept), Masks.evaluate
    monkeypatch.setattr(Masks, "evaluate", lambda self, row: (asked.append(row), plain(self, row))[1])
    allowed = rows.allowed()
    assert len(asked) == len(kept) if grammar else len(asked) < len(kept) - 1
    for b, one in enumerate(alone):
        assert (allowed[b] == one.allowed()[0]).all(), texts[b]
        assert (rows.nearest(rows.allowed())[b] == one.nearest(one.allowed())[0]).all()
    assert len({tuple(row.tolist()) for row in allowed}) > 2


@pytest.mark.parametrize("chosen", ["llama", "byte level"])
def test_masks_leave_bytes_that_are_no_character(chosen):
    """FF is one of them: it breaks the text, and holds no x."""
    vocabulary = byte_level() if chosen == "byte level" else tiny.sentencepiece(WORDS, chosen, fallback=EVERY)
    model = tiny.HuggingFaceModel(*tiny.build(chosen=vocabulary))
    program = lmppl.compile('lm LM = "x"\nZ ~ LM("x") max 9\nconstrain not contains(Z, "x")').program
    masks = bind(program, {"LM": model}, Row({}, {}))[0].text_latent("Z").masks
    for tokens in ((), model.encode("cat", markers=False)):
        allowed = masks.start([tokens]).allowed()[0]
        assert allowed.tolist() == [b"x" not in piece for piece in model.token_bytes]


def test_constraints_guide_the_draws():
    """Of texts that the prior hardly ever writes: all draws meet them, and weights put the evidence right."""
    model = tiny.HuggingFaceModel(
        *tiny.build(chosen=tiny.sentencepiece((" cat", "."), "gemma", fallback=EVERY), seed=1)
    )
    text = 'lm LM = "x"\nZ ~ LM("cat") max 3 tokens\nconstrain matches(Z, /( cat)+\\./)'
    request = Request("importance", {"chains": 1, "num_samples": 400})
    row = run(lmppl.compile(text).program, [Row({}, {})], {"LM": model}, request).rows[0]
    assert not row.warnings
    pieces = model.token_bytes
    cat, dot = b" cat", b"."
    options = [[t for t, piece in enumerate(pieces) if piece and (cat * 2 + dot).find(piece) >= 0]] * 3
    prompt = model.begin(model.encode("cat", markers=True, opening=True))
    law = {}
    for length in (1, 2, 3):
        for tokens in itertools.product(*options[:length]):
            string = b"".join(pieces[t] for t in tokens)
            if string in (cat + dot, cat * 2 + dot):
                scored = tokens if length == 3 else (*tokens, model.end)
                law.setdefault(string.decode(), []).append(tiny.reference_log_prob(model, prompt, scored))
    evidence = np.logaddexp.reduce([score for scores in law.values() for score in scores])
    assert abs(row.log_evidence - evidence) < 4 * row.log_evidence_se + 1e-3
    for string, scores in law.items():
        share = sum(w for draw, w in zip(row.draws, row.weights, strict=True) if draw.values["Z"] == string)
        assert abs(share - np.exp(np.logaddexp.reduce(scores) - evidence)) < 0.1


@pytest.mark.slow
def test_what_a_mask_asks_for_may_be_rare_while_others_are_allowed():
    """A text that ends at once has most of the mass, and its next token, ".", one in fifty of the masked law's."""
    words = (" cat", " bat", "cat", ".", " c", " b")
    model = tiny.HuggingFaceModel(*tiny.build(chosen=tiny.sentencepiece(words, "gemma", fallback=EVERY), seed=3))
    program = lmppl.compile(
        'lm LM = "x"\nZ ~ LM("a cat") max 6 tokens\nconstrain matches(Z, /( ?(cat|bat)){1,2}\\./)'
    ).program

    def row(engine, chains):
        return run(program, [Row({}, {})], {"LM": model}, Request(engine, {"chains": chains, "num_samples": 100})).rows[
            0
        ]

    exact = row("exact", 1).log_evidence
    for engine in ("smc", "importance"):
        found = row(engine, 12)
        assert found.log_evidence_se < 0.15
        assert abs(found.log_evidence - exact) < 4 * found.log_evidence_se
