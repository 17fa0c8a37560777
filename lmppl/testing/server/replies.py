"""What a server answers to each path."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lmppl.lm import LanguageModel, Tokens
from lmppl.testing.server.answers import choice
from lmppl.testing.server.conversations import tokenised
from lmppl.testing.server.drawing import Place, draw, prompt_laws
from lmppl.testing.server.questions import Question, Refused, read_question
from lmppl.testing.server.traps import Traps

VERSION = "0.32.0"  # of vLLM, whose answers these are like
COMPLETIONS = "/v1/completions"
MEETING = 0.05  # seconds without a further request, after which those that are there are a batch
MOST_LOGPROBS = 20  # alternatives a token, as vLLM has it without a flag
Load = Callable[[str], LanguageModel]


class Replies:
    """A model with its adapters, and answers about them. See FakeServer."""

    def __init__(
        self,
        model: LanguageModel,
        traps: Traps,
        name: str,
        adapters: dict[str, LanguageModel],
        load: Load | None,
        most_logprobs: int,
    ) -> None:
        self._model, self._traps, self._name = model, traps, name
        self._adapters, self._load, self._most_logprobs = adapters, load, most_logprobs
        self._lock, self._model_lock = threading.Lock(), threading.Lock()
        self._in_flight, self._number = 0, 0
        self._scored: list[Tokens] = []
        self._posts = {
            COMPLETIONS: self._complete,
            "/tokenize": self._tokenize,
            "/detokenize": self._detokenize,
            "/v1/load_lora_adapter": self._load_adapter,
            "/v1/unload_lora_adapter": self._unload_adapter,
        }

    def answer(self, path: str, body: Any) -> Any:
        """The answer to a request, a document or a text. body: None for a GET. Raises Refused."""
        if body is None:
            known = {"/version": {"version": VERSION}, "/v1/models": self._models()}
            known |= {"/health": "", "/ping": ""}
        else:
            known = self._posts
        if path not in known:
            raise Refused("Not Found", status=404, kind="NotFoundError")
        if body is None:
            return known[path]
        if not isinstance(body, dict):
            raise Refused("Input should be a valid dictionary")
        return self._posts[path](body)

    def _models(self) -> Any:
        base = {"id": self._name, "root": self._model.identifier, "parent": None}
        cards = [{**base, "max_model_len": self._window}]
        for name in self._adapters:
            cards.append({"id": name, "root": name, "parent": self._name, "max_model_len": None})
        more = {"object": "model", "created": 0, "owned_by": "vllm", "permission": []}
        return {"object": "list", "data": [{**more, **card} for card in cards]}

    @property
    def _window(self) -> int:
        return self._traps.claimed_window or self._model.window

    def _find(self, name: Any) -> LanguageModel:
        if name is None or name == self._name:
            return self._model
        if name not in self._adapters:
            message = f"The model `{name}` does not exist."
            raise Refused(message, status=404, kind="NotFoundError")
        return self._model if self._traps.inactive_adapters else self._adapters[name]

    # --- completions ------------------------------------------------------------------------------

    def _complete(self, body: Mapping[str, Any]) -> Any:
        question = read_question(body, self._traps)
        model = self._find(question.model)
        self._require_few(question)
        prompts = [self._prompt(model, prompt, question) for prompt in question.prompts]
        with self._beside(len(prompts) * question.n) as places, self._model_lock:
            choices = self._choices(model, question, prompts, places)
            self._number += 1
        drawn = sum(one.pop("drawn") for one in choices)
        read = sum(map(len, prompts))
        usage = {"prompt_tokens": read, "completion_tokens": drawn, "total_tokens": read + drawn}
        return {
            "id": f"cmpl-{self._number}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": question.model or self._name,
            "choices": [{"index": index, **one} for index, one in enumerate(choices)],
            "usage": {**usage, "prompt_tokens_details": None},
            "system_fingerprint": None,
            "service_tier": None,
            "kv_transfer_params": None,
        }

    def _choices(
        self,
        model: LanguageModel,
        question: Question,
        prompts: Sequence[Tokens],
        places: Sequence[Place],
    ) -> list[dict[str, Any]]:
        found = []
        for i, prompt in enumerate(prompts):
            own = places[i * question.n :][: question.n]
            laws = None
            if question.prompt_logprobs is not None:
                laws = self._kept(prompt, prompt_laws(model, prompt, own[0], self._traps))
            for text in draw(model, prompt, question, own, self._traps):
                made = choice(model, question, prompt, laws, text, self._traps)
                found.append({**made, "drawn": len(text.tokens)})
        return found

    def _kept(self, prompt: Tokens, laws: list[Any]) -> list[Any]:
        """What traps leave of a prompt's laws."""
        if self._traps.shifted:
            laws = _late(prompt, laws)
        if (block := self._traps.stale_block) is not None:
            shared = max((_common(prompt, other) for other in self._scored), default=0)
            self._scored.append(prompt)
            return laws[shared // block * block :]
        return laws

    def _require_few(self, question: Question) -> None:
        most = self._most_logprobs
        counts = {"logprobs": question.logprobs, "prompt_logprobs": question.prompt_logprobs}
        for name, count in counts.items():
            if count is not None and most >= 0 and not 0 <= count <= most:
                raise Refused(f"Requested {name} of {count}, which is greater than {most}")

    def _prompt(self, model: LanguageModel, prompt: Any, question: Question) -> Tokens:
        """A prompt's tokens, in the window with at least one more. Raises Refused."""
        if isinstance(prompt, str):
            prompt = model.encode(prompt, markers=True, opening=True)
            prompt = model.begin(prompt) if question.special else prompt
        tokens = tuple(prompt)
        if self._traps.doubles_beginning:
            tokens = (*model.begin(()), *tokens)
        if self._traps.clips and len(tokens) >= model.window:
            tokens = tokens[1 - model.window :]
        if not tokens or max(tokens) >= model.vocabulary_size:
            raise Refused("The decoder prompt cannot be empty, or has a token out of vocabulary")
        if len(tokens) >= model.window + (question.most == 0):
            raise Refused(
                f"This model's maximum context length is {model.window} tokens. However, your "
                f"prompt contains {len(tokens)} tokens."
            )
        return tokens

    @contextmanager
    def _beside(self, rows: int) -> Iterator[list[Place]]:
        """The places of a request's rows among all that are in flight."""
        with self._lock:
            first = self._in_flight
            self._in_flight += rows
        beside = 0
        while self._traps.looks_around and beside < self._in_flight:
            beside = self._in_flight
            time.sleep(MEETING)
        try:
            yield [Place(max(beside - 1, 0), first + i) for i in range(rows)]
        finally:
            with self._lock:
                self._in_flight -= rows

    # --- texts and adapters -----------------------------------------------------------------------

    def _tokenize(self, body: Mapping[str, Any]) -> Any:
        model = self._find(body.get("model"))
        tokens = tokenised(model, body, self._traps)
        names = model.pieces(tokens) if body.get("return_token_strs") else None
        found = {"count": len(tokens), "max_model_len": self._window, "tokens": list(tokens)}
        return {**found, "token_strs": names}

    def _detokenize(self, body: Mapping[str, Any]) -> Any:
        return {"prompt": self._find(body.get("model")).decode(body.get("tokens", []))}

    def _load_adapter(self, body: Mapping[str, Any]) -> str:
        name, path = body.get("lora_name"), body.get("lora_path")
        if not name or not path:
            raise Refused("Both 'lora_name' and 'lora_path' must be provided.")
        if self._load is None:
            raise Refused("Not Found", status=404, kind="NotFoundError")
        if name in self._adapters and not body.get("load_inplace"):
            raise Refused(f"The lora adapter '{name}' has already been loaded.")
        with self._model_lock:
            self._adapters[name] = self._load(path)
        return f"Success: LoRA adapter '{name}' added successfully."

    def _unload_adapter(self, body: Mapping[str, Any]) -> str:
        name = str(body.get("lora_name"))
        if self._adapters.pop(name, None) is None:
            message = f"The lora adapter '{name}' cannot be found."
            raise Refused(message, status=404, kind="NotFoundError")
        return f"Success: LoRA adapter '{name}' removed successfully."


def _late(prompt: Tokens, laws: list[Any]) -> list[Any]:
    """Laws in which each token has the log p of the one before it."""
    found = list(laws[:2])
    for place in range(2, len(prompt)):
        law = laws[place].copy()
        law[prompt[place]] = laws[place - 1][prompt[place - 1]]
        found.append(law)
    return found


def _common(one: Tokens, other: Tokens) -> int:
    """How many tokens two texts begin with alike."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
