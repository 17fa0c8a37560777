"""The page of the service: its `curl` examples and the client of OpenAI, on a service that runs."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from service import Bytes, loaded, running, said

import lmppl
from lmppl.run import Request
from lmppl.screen import quiet
from lmppl.serve import load_programs

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "serve.md"
PLACE = "http://127.0.0.1:8000"


def examples():
    """Every `curl` command of the page, and the JSON that follows it."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"^```\n\$ (curl .*?)\n```$.*?^```json\n(.*?)^```$", text, re.M | re.S)
    return [(command, json.loads(shown)) for command, shown in found]


def holds(shown, found):
    """What the page shows is in the reply: keys that it leaves out may be there."""
    if isinstance(shown, dict):
        assert shown.keys() <= found.keys()
        for key, value in shown.items():
            holds(value, found[key])
    elif isinstance(shown, list):
        assert len(shown) == len(found)
        for value, other in zip(shown, found, strict=True):
            holds(value, other)
    else:
        assert found == (pytest.approx(shown, abs=0.02) if isinstance(shown, float) else shown)


@pytest.mark.model
def test_the_examples_of_the_page_reply_what_it_shows(smollm2):
    programs = {name: lmppl.compile(ROOT / "programs" / f"{name}.lm") for name in ("chat", "judge")}
    with (
        load_programs(programs, {}, Request(), {"device": "cpu"}, quiet) as served,
        running(served) as (url, _),
    ):
        assert len(examples()) == 2
        for command, shown in examples():
            arguments = shlex.split(command.replace(PLACE, url))
            done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=True)
            holds(shown, json.loads(done.stdout))
        names = {}
        code = re.search(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)[1]
        exec(compile(code.replace(PLACE, url), "serve.md", "exec"), names)
        reply = names["reply"]
        assert set(json.loads(reply.choices[0].message.content)) == {"ORDER", "V", "W"}
        names["client"].close()


@pytest.mark.slow
def test_the_client_of_openai(tiny_model):
    import openai

    models = {"LM": tiny_model, "BYTES": Bytes()}
    with loaded(models) as programs, running(programs, token="a-long-token") as (url, _):
        with openai.OpenAI(base_url=f"{url}/v1", api_key="a-long-token", max_retries=0) as client:
            assert {model.id for model in client.models.list()} == programs.keys()
            asked = {"model": "text", "seed": 3, "n": 2}
            reply = client.chat.completions.create(messages=said(" a"), **asked)
            assert [choice.finish_reason for choice in reply.choices] == ["stop", "stop"]
            assert reply.choices[0].lmppl["probability"] == reply.lmppl["probability"]
            streamed = {0: "", 1: ""}
            for chunk in client.chat.completions.create(messages=said(" a"), stream=True, **asked):
                for choice in chunk.choices:
                    streamed[choice.index] += choice.delta.content or ""
            assert list(streamed.values()) == [choice.message.content for choice in reply.choices]
            plain = client.completions.create(model="text", prompt=" a", seed=3, n=2)
            assert [choice.text for choice in plain.choices] == list(streamed.values())
            given = client.chat.completions.create(
                model="two", messages=[], seed=1, extra_body={"givens": {"X": " a", "W": " b"}, "until": {"se": 0.4}}
            )
            assert given.lmppl["until"]["ended"] == "reached"
            with pytest.raises(openai.NotFoundError, match="no model 'tex'"):
                client.chat.completions.create(model="tex", messages=said(" a"))
            with pytest.raises(openai.UnprocessableEntityError):
                client.chat.completions.create(model="two", messages=said(" a"))
        stranger = openai.OpenAI(base_url=f"{url}/v1", api_key="another", max_retries=0)
        with stranger, pytest.raises(openai.AuthenticationError):
            stranger.models.list()
