"""The server for tests answers as vLLM would, by the laws of its model; and each trap does what it says."""

import json
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tiny

from lmppl.lm import ChatTemplate, TableModel
from lmppl.testing import FakeServer, Traps
from lmppl.testing.chance import require_near
from lmppl.testing.engines import TABLE

PROMPT = [0, 1, 0, 2]
TURNS = "{% for m in messages %} a{{ m.content }}.{% endfor %}{% if add_generation_prompt %} b{% endif %}"


def table():
    return TableModel(TABLE)


def ask(server, path, body=None, key=None):
    """Status and answer."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    root = server.url.removesuffix("/v1")
    request = urllib.request.Request(f"{root}{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            status, content = answer.status, answer.read().decode()
    except urllib.error.HTTPError as reason:
        status, content = reason.code, reason.read().decode()
    return status, json.loads(content) if content.startswith("{") else content


def complete(server, **asked):
    defaults = {"model": "fake", "prompt": PROMPT, "max_tokens": 3, "temperature": 1, "logprobs": 0, "seed": 5}
    status, answer = ask(server, "/v1/completions", {**defaults, "return_token_ids": True, **asked})
    assert status == 200, answer
    return answer["choices"]


def drawn(server, **asked):
    return [(one["token_ids"], one["logprobs"]["token_logprobs"]) for one in complete(server, **asked)]


def scores(server, prompt=PROMPT, **asked):
    """Log p of a prompt's tokens, None for the first."""
    (one,) = complete(server, prompt=prompt, max_tokens=1, prompt_logprobs=0, **asked)
    found = zip(prompt, one["prompt_logprobs"], strict=True)
    return [law and law[str(token)]["logprob"] for token, law in found]


def law_after(model, prompt=PROMPT):
    return model.stream(tuple(prompt), [()]).log_probs()[0].double().numpy()


@pytest.fixture(scope="module")
def model():
    return table()


@pytest.fixture(scope="module")
def server(model):
    with FakeServer(model, most_logprobs=-1) as running:
        yield running


# --- as it should be ------------------------------------------------------------------------------


def test_what_it_says_of_itself(server, model):
    assert ask(server, "/health") == (200, "")
    assert ask(server, "/version") == (200, {"version": "0.32.0"})
    _, models = ask(server, "/v1/models")
    (card,) = models["data"]
    assert (card["id"], card["max_model_len"]) == ("fake", model.window)
    assert ask(server, "/v1/nothing")[0] == 404
    assert server.identifier == f"http://127.0.0.1:{server.port}/v1#fake"


@pytest.mark.parametrize("made", [table, tiny.model], ids=["table", "network"])
def test_draws_and_prompts_have_the_models_log_probabilities(made):
    model = made()
    with FakeServer(model) as server:
        told = scores(server)
        assert told[0] is None
        np.testing.assert_allclose(told[1:], model.score((0,), [tuple(PROMPT[1:])], [0])[0], atol=1e-5)
        for tokens, found in drawn(server, n=5, max_tokens=4):
            assert 1 <= len(tokens) <= 4
            np.testing.assert_allclose(found, model.score(tuple(PROMPT), [tuple(tokens)], [0])[0], atol=1e-5)


def test_draws_follow_the_law(server, model):
    counts = Counter(tokens[0] for tokens, _ in drawn(server, n=600, max_tokens=1))
    law = np.exp(law_after(model))
    possible = {i: p for i, p in enumerate(law) if p > 0}
    require_near(possible, {i: count / 600 for i, count in counts.items()}, 600, "one token")


def test_shaped_draws_follow_the_shaped_law(server, model):
    law = law_after(model) / 0.5
    kept = law >= np.sort(law)[-2]
    expected = np.where(kept, np.exp(law), 0) / np.exp(law[kept]).sum()
    counts = Counter(tokens[0] for tokens, _ in drawn(server, n=600, max_tokens=1, temperature=0.5, top_k=2))
    possible = {i: p for i, p in enumerate(expected) if p > 0}
    require_near(possible, {i: count / 600 for i, count in counts.items()}, 600, "one token")


@pytest.mark.parametrize("processed", [False, True])
def test_log_probs_are_raw_or_processed(model, processed):
    with FakeServer(model, Traps(processed_logprobs=processed)) as server:
        ((tokens, found),) = drawn(server, max_tokens=1, temperature=0.5)
    law = law_after(model) / (0.5 if processed else 1)
    assert found[0] == pytest.approx((law - np.logaddexp.reduce(law))[tokens[0]])


def test_a_row_hangs_on_its_seed_alone(server):
    rows = drawn(server, n=4, seed=5)
    assert rows == [drawn(server, seed=5 + i)[0] for i in range(4)]
    assert drawn(server, prompt=[PROMPT, PROMPT], seed=5) == [rows[0], rows[0]]
    with ThreadPoolExecutor(4) as pool:
        assert [one[0] for one in pool.map(lambda i: drawn(server, seed=5 + i), range(4))] == rows
    assert len({tuple(tokens) for tokens, _ in drawn(server, n=20)}) > 1


def test_the_likeliest_at_temperature_0(server, model):
    ((tokens, _),) = drawn(server, temperature=0, max_tokens=1)
    assert tokens == [int(law_after(model).argmax())]


def test_whole_laws_and_chosen_tokens(server, model):
    law = law_after(model)
    (one,) = complete(server, max_tokens=1, logprobs=-1, return_tokens_as_token_ids=True)
    (named,) = one["logprobs"]["top_logprobs"]
    assert named == {f"token_id:{i}": pytest.approx(max(value, -9999)) for i, value in enumerate(law)}
    (one,) = complete(server, max_tokens=1, logprob_token_ids=[2, 3], return_tokens_as_token_ids=True)
    (named,) = one["logprobs"]["top_logprobs"]
    assert {"token_id:2", "token_id:3"} <= set(named)


def test_an_end_is_returned_and_scored(server, model):
    ended = [row for row in drawn(server, n=40, max_tokens=8) if row[0][-1] == model.end]
    assert ended
    for tokens, found in ended:
        assert found[-1] == pytest.approx(model.score(tuple(PROMPT), [tuple(tokens)], [len(tokens) - 1])[0][0])
    texts = complete(server, n=40, max_tokens=8)
    assert {one["finish_reason"] for one in texts} == {"stop", "length"}
    assert not any("<end>" in one["text"] for one in texts)
    assert not any(model.end in tokens for tokens, _ in drawn(server, n=20, max_tokens=4, min_tokens=4))
    going_on = drawn(server, n=20, max_tokens=8, ignore_eos=True)
    assert {len(tokens) for tokens, _ in going_on} == {8}
    assert any(model.end in tokens[:-1] for tokens, _ in going_on)
    stopped = drawn(server, n=20, max_tokens=8, ignore_eos=True, stop_token_ids=[model.end])
    assert stopped == drawn(server, n=20, max_tokens=8)


def test_a_text_stops(server, model):
    for one in complete(server, n=40, max_tokens=8, stop=["b."], include_stop_str_in_output=True):
        written = model.decode([token for token in one["token_ids"] if token != model.end])
        assert one["text"] == written
        assert ("b." in written) == (one["stop_reason"] == "b.") == written.endswith("b.")


@pytest.mark.parametrize(
    ("mask", "allowed"),
    [
        ({"regex": r"( a|\.)( b)?"}, {" a", ".", " a b", ". b"}),
        ({"choice": [" b", ". b"]}, {" b", ". b"}),
        ({"grammar": 'start: " a" | " b" " a"'}, {" a", " b a"}),
    ],
)
def test_masked_draws_have_the_log_p_of_the_masked_law(server, model, mask, allowed):
    rows = complete(server, n=30, max_tokens=4, structured_outputs=mask)
    assert {one["text"] for one in rows if one["finish_reason"] == "stop"} <= allowed
    for one in rows:
        plain = model.score(tuple(PROMPT), [tuple(one["token_ids"])], [0])[0]
        assert sum(one["logprobs"]["token_logprobs"]) > plain.sum()


def test_masks_of_a_schema():
    pieces = ["1", "2", "[", "]", ","]
    model = TableModel({"vocabulary": pieces, "laws": {"": {**dict.fromkeys(pieces, 0.19), "<end>": 0.05}}})
    schema = {"type": "array", "items": {"const": 1}, "maxItems": 2}
    with FakeServer(model) as server:
        rows = complete(server, n=20, max_tokens=9, structured_outputs={"json": schema})
    assert {one["text"] for one in rows} == {"[]", "[1]", "[1,1]"}


def test_masked_log_p_by_hand(server, model):
    """Of two tokens that may come, the first one's law is that of these two."""
    one = complete(server, max_tokens=1, structured_outputs={"choice": [" b", "."]})[0]
    law = law_after(model)[[1, 2]]
    share = law - np.logaddexp.reduce(law)
    assert one["logprobs"]["token_logprobs"] == [pytest.approx(share[one["token_ids"][0] - 1])]


def test_texts_are_tokenised(server, model):
    _, found = ask(server, "/tokenize", {"prompt": " a b.", "add_special_tokens": False})
    assert (found["tokens"], found["count"]) == ([0, 1, 2], 3)
    assert ask(server, "/detokenize", {"tokens": [0, 1, 2]})[1] == {"prompt": " a b."}


def test_conversations_are_tokenised():
    model = table()
    model.chat = ChatTemplate(TURNS)
    messages = [{"role": "user", "content": " b b"}]
    with FakeServer(model) as server:
        _, found = ask(server, "/tokenize", {"messages": messages})
        assert model.decode(found["tokens"]) == " a b b. b"
        asked = {"messages": messages, "add_generation_prompt": False, "continue_final_message": True}
        assert model.decode(ask(server, "/tokenize", asked)[1]["tokens"]) == " a b b"


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"max_tokens": 0}, 400), ({"prompt": []}, 400), ({"prompt": [99]}, 400), ({"model": "other"}, 404),
        ({"prompt_logprobs": 21}, 400), ({"temperature": -1}, 400), ({"top_p": 0}, 400), ({"n": "x"}, 400),
        ({"structured_outputs": {"regex": "a(?=b)"}}, 400), ({"presence_penalty": 1}, 400), ({"stop": [""]}, 400),
        ({"unknown": 1}, 200), ({"seed": None}, 200),
    ],
)  # fmt: skip
def test_what_is_refused(wrong, status, model):
    with FakeServer(model) as server:
        asked = {"model": "fake", "prompt": PROMPT, "max_tokens": 1, **wrong}
        found, answer = ask(server, "/v1/completions", asked)
        assert found == status
        assert "choices" in answer if status == 200 else answer["error"]["message"]


def test_beyond_the_window():
    model = tiny.model(window=8)
    with FakeServer(model) as server:
        assert ask(server, "/v1/completions", {"prompt": [0] * 8, "max_tokens": 1})[0] == 400
        assert len(drawn(server, prompt=[0] * 5, max_tokens=9, ignore_eos=True)[0][0]) == 3
    with FakeServer(model, Traps(clips=True)) as server:
        assert ask(server, "/v1/completions", {"prompt": [0] * 9, "max_tokens": 1})[0] == 200


def test_adapters_are_loaded_by_name(model):
    other = TableModel({**TABLE, "laws": {"": {" a": 1.0}}})
    with FakeServer(model, load=lambda path: other) as server:
        asked = {"lora_name": "one", "lora_path": "/folder"}
        assert ask(server, "/v1/load_lora_adapter", asked)[0] == 200
        assert ask(server, "/v1/load_lora_adapter", asked)[0] == 400
        assert drawn(server, model="one") == [([0, 0, 0], [0, 0, 0])]
        assert [card["id"] for card in ask(server, "/v1/models")[1]["data"]] == ["fake", "one"]
        assert ask(server, "/v1/unload_lora_adapter", asked)[0] == 200
        assert ask(server, "/v1/completions", {"model": "one", "prompt": PROMPT})[0] == 404


def test_a_key_is_asked_for(model):
    with FakeServer(model, key="secret") as server:
        assert ask(server, "/v1/models")[0] == 401
        assert ask(server, "/v1/models", key="secret")[0] == 200


# --- traps ----------------------------------------------------------------------------------------


def test_traps_of_log_probabilities(server, model):
    with FakeServer(model, Traps(offset=0.5)) as wrong:
        assert scores(wrong)[1:] == pytest.approx([value + 0.5 for value in scores(server)[1:]])
    with FakeServer(model, Traps(shifted=True)) as wrong:
        assert scores(wrong)[1:] != pytest.approx(scores(server)[1:])
    with FakeServer(model, Traps(decoding_noise=0.3)) as wrong:
        assert scores(wrong) == scores(server)
        assert drawn(wrong)[0][0] == drawn(server)[0][0]
        assert drawn(wrong)[0][1] != pytest.approx(drawn(server)[0][1])
    with FakeServer(model, Traps(unscored_prompts=True)) as wrong:
        assert complete(wrong, prompt_logprobs=0)[0]["prompt_logprobs"] is None
    with FakeServer(model, Traps(stale_block=4)) as wrong:
        lengths = [len(complete(wrong, prompt=[0] * 6, prompt_logprobs=0)[0]["prompt_logprobs"]) for _ in range(2)]
        assert lengths == [6, 2]


def test_traps_of_the_end(model):
    with FakeServer(model, Traps(hides_end=True)) as wrong:
        assert not any(model.end in tokens for tokens, _ in drawn(wrong, n=20))
    with FakeServer(model, Traps(end_unscored=True)) as wrong:
        assert {found[-1] for tokens, found in drawn(wrong, n=20) if tokens[-1] == model.end} == {0}


def test_traps_of_neighbours(server, model):
    with FakeServer(model, Traps(batch_noise=0.3)) as wrong, ThreadPoolExecutor(2) as pool:
        assert scores(wrong) == scores(server)
        beside = list(pool.map(lambda _: scores(wrong), range(2)))
        assert beside[0] != pytest.approx(scores(server))
        assert beside[0] != beside[1]
    with FakeServer(model, Traps(seeds_moved=True)) as wrong, ThreadPoolExecutor(2) as pool:
        assert drawn(wrong, max_tokens=9) == drawn(server, max_tokens=9)
        seeds = range(5, 9)
        beside = [row for rows in pool.map(lambda seed: drawn(wrong, seed=seed, n=8), seeds) for row in rows]
        assert beside != [row for seed in seeds for row in drawn(server, seed=seed, n=8)]


def test_traps_of_draws(server, model):
    law = np.exp(law_after(model))
    with FakeServer(model, Traps(seeds_ignored=True)) as wrong:
        assert len({str(drawn(wrong, n=5)) for _ in range(3)}) == 3
    with FakeServer(model, Traps(default_top_p=0.1)) as wrong:
        assert {tokens[0] for tokens, _ in drawn(wrong, n=30, max_tokens=1)} == {int(law.argmax())}
        assert len({tokens[0] for tokens, _ in drawn(wrong, n=30, max_tokens=1, top_p=1)}) > 1
    with FakeServer(model, Traps(forced_top_p=0.1)) as wrong:
        assert {tokens[0] for tokens, _ in drawn(wrong, n=30, max_tokens=1, top_p=1)} == {int(law.argmax())}
    with FakeServer(model, Traps(never_below=0.25)) as wrong:
        assert min(law[tokens[0]] for tokens, _ in drawn(wrong, n=60, max_tokens=1)) >= 0.25
    with FakeServer(model, Traps(forced_temperature=5.0)) as wrong:
        assert drawn(wrong, n=30) != drawn(server, n=30)


def test_traps_of_masks_and_fields(server, model):
    mask = {"structured_outputs": {"choice": [" b", "."]}, "max_tokens": 1}
    with FakeServer(model, Traps(mask_unscored=True)) as wrong:
        ((tokens, found),) = drawn(wrong, **mask)
        assert found == [pytest.approx(law_after(model)[tokens[0]])]
    with FakeServer(model, Traps(ignored=frozenset({"structured_outputs"}))) as wrong:
        assert drawn(wrong, n=20, **mask) == drawn(server, n=20, max_tokens=1)


def test_traps_of_texts(model):
    with FakeServer(tiny.model(), Traps(strips_spaces=True)) as wrong:
        assert ask(wrong, "/tokenize", {"prompt": " b."})[1]["tokens"] != [1, 2]
    with FakeServer(model, Traps(doubles_beginning=True)) as wrong:
        assert complete(wrong)[0]["prompt_token_ids"] == [model.end, *PROMPT]
    with FakeServer(model, Traps(claimed_window=77)) as wrong:
        assert ask(wrong, "/v1/models")[1]["data"][0]["max_model_len"] == 77
    own = table()
    own.chat = ChatTemplate(TURNS)
    with FakeServer(own, Traps(empty_turn=True)) as wrong:
        _, found = ask(wrong, "/tokenize", {"messages": [{"role": "user", "content": " b"}]})
        assert own.decode(found["tokens"]) == " a b. a. b"


def test_traps_of_adapters(model):
    other = TableModel({**TABLE, "laws": {"": {" a": 1.0}}})
    with FakeServer(model, Traps(inactive_adapters=True), adapters={"one": other}) as wrong:
        assert drawn(wrong, model="one") == drawn(wrong)


def test_a_server_that_dies_and_is_revived(model):
    with FakeServer(model, Traps(dies_after=2)) as wrong:
        drawn(wrong)
        drawn(wrong)
        for _ in range(2):
            with pytest.raises(OSError):  # noqa: PT011
                drawn(wrong)
        assert not wrong.is_alive
        wrong.revive()
        drawn(wrong)


def test_a_server_that_fails_now_and_then(model):
    with FakeServer(model, Traps(fails_every=3)) as wrong:
        asked = {"prompt": PROMPT, "max_tokens": 1}
        assert [ask(wrong, "/v1/completions", asked)[0] for _ in range(6)] == [200, 200, 500, 200, 200, 500]
