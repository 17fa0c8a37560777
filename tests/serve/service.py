"""A service in this process, on tiny models; and a model that reads every byte of a given."""

import json
import threading
import urllib.error
import urllib.request
import zlib
from contextlib import ExitStack, contextmanager

import numpy as np

import lmppl
from lmppl.lm import BaseDecoder, PieceTokenizer
from lmppl.run import Request
from lmppl.screen import quiet
from lmppl.serve import Serving, load_programs, make_server, open_socket

PROGRAMS = {
    "choice": 'given X\nY ~ LM("{X}") in [" a", " b"]\n',
    "text": 'given X\nZ ~ LM("{X}") max 3 tokens\nobserve " b" ~ LM(" a{Z}")\n',
    "two": 'given X, W\nZ ~ LM("{X}{W}") max 2 tokens\nA ~ LM("{X}{Z}") in [" a", " b"]\npredict A\n',
    "none": 'Z ~ LM(" a") max 2 tokens\nY ~ LM(" b{Z}") in [" a", " b"]\nstatistic n = tokens(Z)\n',
    "never": 'given X\nZ ~ LM("{X}") max 2 tokens\nconstrain contains(Z, X)\n',
    "rare": 'given X\nZ ~ LM("{X}") max 2 tokens\nconstrain chars(Z) * chars(X) > 1000\n',
    "long": 'given X\nZ ~ LM("{X}") max 12 tokens\n',
    "noise": 'given X\nZ ~ BYTES("<{X}>") max 8 tokens\n',
    "read": 'given X\nY ~ BYTES("<{X}>") in [" yes", " no"]\n',
}


class ByteTokenizer(PieceTokenizer):
    def encode(self, text, *, markers, opening=False):
        return tuple(text.encode())


class Bytes(BaseDecoder):
    """The law after a text hangs on its every byte."""

    def __init__(self):
        pieces = [bytes([byte]) for byte in range(256)]
        super().__init__(ByteTokenizer([*pieces, b"<end>"], 256), identifier="bytes")

    def law(self, prefix):
        rng = np.random.default_rng(zlib.crc32(bytes(byte for byte in prefix if byte < 256)))
        logits = rng.normal(0, 1.5, self.vocabulary_size)
        return logits - np.logaddexp.reduce(logits)

    def next_laws(self, rows):
        return [np.stack([self.law(tokens[:t]) for t in range(first, len(tokens) + 1)]) for tokens, first in rows]

    def log_prob(self, prompt, text):
        """Of a text's bytes behind a prompt's, one by one."""
        prompt, text = list(prompt.encode()), list(text.encode())
        return sum(self.law([*prompt, *text[:n]])[byte] for n, byte in enumerate(text))


def compiled():
    return {
        name: lmppl.compile(f'lm {"BYTES" if "BYTES" in body else "LM"} = "x"\n{body}')
        for name, body in PROGRAMS.items()
    }


@contextmanager
def loaded(models):
    """Programs, ready to be asked, of 50 draws a chain; one of so many that they never end."""
    with ExitStack() as kept:
        found = {}
        for names, size in ((PROGRAMS.keys() - {"long"}, 50), (["long"], 100_000)):
            own = {name: program for name, program in compiled().items() if name in names}
            request = Request(
                settings={"num_samples": size}, lms={n: m for n, m in models.items() if n != "BYTES" or size == 50}
            )
            found |= kept.enter_context(load_programs(own, {}, request, {"device": "cpu"}, quiet))
        yield found


@contextmanager
def running(programs, **limits):
    """A service of its own on a port that is free: where it is, and the server."""
    serving, opened = Serving(**limits), threading.Event()
    with open_socket("127.0.0.1", 0, serving.token) as bound:
        server = make_server(programs, serving, opened.set)
        thread = threading.Thread(target=server.answer, args=[bound])
        thread.start()
        try:
            assert opened.wait(30)
            yield f"http://127.0.0.1:{bound.getsockname()[1]}", server
        finally:
            server.end()
            thread.join(30)
            assert not thread.is_alive()


def ask(url, path, body=None, headers=None):
    """Status, and the reply's document or text."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    kind = {} if data is None else {"content-type": "application/json"}
    request = urllib.request.Request(url + path, data, {**kind, **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            status, raw, found = reply.status, reply.read(), reply.headers
    except urllib.error.HTTPError as reason:
        with reason:
            status, raw, found = reason.code, reason.read(), reason.headers
    assert not set(raw) & {*range(10), *range(11, 13), *range(14, 32), 127}  # nothing that moves a cursor
    return status, json.loads(raw) if found["content-type"] == "application/json" else raw.decode()


def said(text):
    return [{"role": "user", "content": text}]
