"""A server of one tiny model, which speaks as vLLM does: routes of completions, models, version and tokenize."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import tiny

LEAST = -9999.0


class CompletionsServer:
    """What it does is what `model` does; `trouble(path, body)` may answer in its place: None, or (status, document)."""

    def __init__(self, model, root, *, name="tiny", stops=(), window=64, numbered=True):
        self.model, self.root, self.name, self.stops = model, root, name, stops
        self.window, self.numbered = window, numbered
        self.bodies, self.keys, self.laws = [], [], {}
        self.trouble = lambda path, body: None
        self.others = []  # models that are listed as well
        self.lock = threading.Lock()

    def answer(self, path, body):
        if (said := self.trouble(path, body)) is not None:
            return said
        if path == "/version":
            return 200, {"version": "tiny"}
        if path == "/v1/models":
            own = {"id": self.name, "root": str(self.root), "parent": None, "max_model_len": self.window}
            return 200, {"data": [own, *self.others]}
        if path == "/tokenize":
            return 200, {"tokens": self.model.tokenizer(body["prompt"], add_special_tokens=False)["input_ids"]}
        with self.lock:
            self.bodies.append(body)
            return 200, {"choices": [self.completion(body)]}

    def completion(self, body):
        prompt = tuple(body["prompt"])
        if len(prompt) + 1 > self.window:
            raise ValueError("too long")
        rng, law_of = np.random.default_rng(body.get("seed")), self.law
        assert [body[name] for name in ("temperature", "top_p", "top_k", "min_p")] == [1, 1, 0, 0]
        tokens, laws = [], []
        for _ in range(min(body["max_tokens"], self.window - len(prompt))):
            laws.append(law_of((*prompt, *tokens)))
            tokens.append(int(rng.choice(len(laws[-1]), p=np.exp(laws[-1]))))
            ends = {*body.get("stop_token_ids", ()), *self.stops}
            reasons = [tokens[-1]] if tokens[-1] in ends else []
            reasons += [stop for stop in body.get("stop", ()) if stop in self.model.decode(tokens)]
            if reasons:
                break
        why = {"finish_reason": "stop", "stop_reason": reasons[0]} if reasons else {"finish_reason": "length"}
        found = {**why, "token_ids": tokens, "logprobs": self.told(tokens, laws, body)}
        if "prompt_logprobs" in body:
            rows = [law_of(prompt[:place]) for place in range(1, len(prompt))]
            own = [{str(t): {"logprob": nats(row[t])}} for t, row in zip(prompt[1:], rows, strict=True)]
            found["prompt_logprobs"] = [None, *own]
        return found

    def told(self, tokens, laws, body):
        named = body.get("logprob_token_ids", ()) if self.numbered else ()
        top = [
            {f"token_id:{t}": nats(law[t]) for t in (token, *named)} for token, law in zip(tokens, laws, strict=True)
        ]
        scores = [nats(law[token]) for token, law in zip(tokens, laws, strict=True)]
        return {"tokens": [f"token_id:{t}" for t in tokens], "token_logprobs": scores, "top_logprobs": top}

    def law(self, tokens):
        """(V,) of the network itself: every end token has a probability of its own."""
        if tokens not in self.laws:
            self.laws[tokens] = tiny.reference_law(self.model, tokens).numpy()
        return self.laws[tokens]


def nats(value):
    return max(float(value), LEAST)


@contextmanager
def serving(server, port=0):
    """The address of a running server. It is gone in the end, with all of its connections."""
    connections = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self):
            super().setup()
            connections.append(self.connection)

        def do_GET(self):
            self.reply(None)

        def do_POST(self):
            self.reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def reply(self, body):
            server.keys.append(self.headers.get("Authorization"))
            status, document = server.answer(self.path, body)
            if status is None:  # as a process that is killed
                self.close_connection = True
                return
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    running.daemon_threads = True
    thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_address[1]}/v1"
    finally:
        running.shutdown()
        running.server_close()
        for connection in connections:
            try:
                connection.shutdown(2)
            except OSError:
                continue
