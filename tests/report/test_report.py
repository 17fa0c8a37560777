"""A run on the terminal: the answer first, rows × options beside their prior, and nothing that a text could forge."""

import dataclasses
import io
import math

import pytest
import tiny
import torch
from rich.console import Console

import lmppl
from lmppl.diagnosis.diagnostics import Diagnostics
from lmppl.diagnosis.prediction import Prediction
from lmppl.diagnosis.sampling import Estimate
from lmppl.posterior.answer import legible, matrix, statistics
from lmppl.posterior.posterior import load
from lmppl.posterior.result import RowPosterior
from lmppl.posterior.store import save
from lmppl.report.page.answer import answer_html
from lmppl.report.run import number, show_posterior

OPTIONS = (" a.", " b", " a b")
ROWS = [{"Y": " a ."}, {"Y": " b b"}, {"Y": " . a"}]
HOSTILE = "[red]x[/] \x1b[2J\x07 \u202e"


@pytest.fixture(scope="module")
def model():
    return tiny.model()


def chosen(folder, context=" b", rows=ROWS, engine="exact", given="given Y"):
    listed = ", ".join(f'"{option}"' for option in OPTIONS)
    text = f'lm LM = "{folder}"\n{given}\nZ ~ LM("{context}") in [{listed}]\nobserve Y ~ LM("{context}{{Z}}")\n'
    return lmppl.compile(text).infer(engine, data=rows, num_samples=50)


def shown(posterior, width=100, verbose=False):
    console = Console(width=width, record=True, file=io.StringIO())
    show_posterior(posterior, console, verbose)
    return console.export_text()


def brute_force(model, context, observed):
    """Prior and posterior of the options, each from passes without a cache."""

    def encode(text):
        return tuple(model.tokenizer(text, add_special_tokens=False)["input_ids"])

    start, words = encode(context), [encode(option) for option in OPTIONS]
    prior = torch.tensor([tiny.reference_log_prob(model, start, word) for word in words]).softmax(0)
    fit = [tiny.reference_log_prob(model, (*start, *word), encode(observed)) for word in words]
    return prior.tolist(), (prior.log() + torch.tensor(fit)).softmax(0).tolist()


@pytest.mark.parametrize("engine", ["exact", "importance"])
def test_a_matrix_holds_prior_and_posterior_of_every_row(tiny_folder, model, engine):
    found = matrix(chosen(tiny_folder, engine=engine))
    assert found.options == OPTIONS
    for line, row in zip(found.lines, ROWS, strict=True):
        prior, posterior = brute_force(model, " b", row["Y"])
        assert [line.prior[option] for option in OPTIONS] == pytest.approx(prior, abs=1e-5)
        if engine == "exact":
            assert [line.posterior[option] for option in OPTIONS] == pytest.approx(posterior, abs=1e-5)
    assert found.prior == found.lines[0].prior


def test_priors_that_differ_stand_in_their_rows(tiny_folder, model):
    rows = [{"X": " a", "Y": " a"}, {"X": " b b", "Y": " a"}]
    posterior = chosen(tiny_folder, "{X}", rows, given="given X, Y")
    found = matrix(posterior)
    assert found.prior == {}
    for line, row in zip(found.lines, rows, strict=True):
        assert list(line.prior.values()) == pytest.approx(brute_force(model, row["X"], row["Y"])[0], abs=1e-5)
    assert shown(posterior).count("prior") == 2


def test_a_prior_of_several_choices_is_the_marginal(tiny_folder):
    text = f'lm LM = "{tiny_folder}"\nY ~ LM(" b") in [" a", " b"]\nZ ~ LM(" b{{Y}}") in [" a", "."]\n'
    row = lmppl.compile(text).infer("exact", num_samples=10).rows[0]
    for name, prior in row.prior.items():  # without evidence it is the posterior
        assert prior == pytest.approx(row.probabilities(name))


def test_there_is_no_matrix_of_one_row_of_texts_or_of_two_choices(tiny_folder):
    assert matrix(chosen(tiny_folder, rows=ROWS[:1])) is None
    text = f'lm LM = "{tiny_folder}"\ngiven Y\nZ ~ LM(Y) max 1 tokens\n'
    assert matrix(lmppl.compile(text).infer("exact", data=ROWS, num_samples=5)) is None
    text = f'lm LM = "{tiny_folder}"\ngiven Y\nA ~ LM(Y) in [" a", " b"]\nB ~ LM(Y) in [" a", " b"]\n'
    assert matrix(lmppl.compile(text).infer("exact", data=ROWS, num_samples=5)) is None


def test_a_row_whose_choice_is_observed_stands_in_the_matrix(tiny_folder):
    found = matrix(chosen(tiny_folder, rows=[*ROWS, {"Y": " a", "Z": " b"}]))
    assert found.lines[-1].posterior == {" b": 1.0}
    assert found.lines[-1].prior == {}
    assert found.lines[-1].givens == {"Y": " a"}


def test_a_prior_is_read_back(tiny_folder, tmp_path):
    posterior = chosen(tiny_folder)
    save(posterior, tmp_path / "run")
    assert matrix(load(tmp_path / "run")) == matrix(posterior)


def test_an_exact_law_has_masses_and_a_verdict_and_no_statistics(tiny_folder):
    lines = shown(chosen(tiny_folder), verbose=True)
    assert lines.index("prior of Z") < lines.index("verdict on 3 rows pass") < lines.index("details")
    assert "ess_bulk" not in lines
    assert "enumeration" not in lines


def test_statistics_come_last_and_when_asked_for(tiny_folder):
    text = f'lm LM = "{tiny_folder}"\nZ ~ LM(" a") max 3 tokens\nstatistic n = words(Z)\n'
    posterior = lmppl.compile(text).infer("importance", num_samples=100)
    brief, whole = shown(posterior), shown(posterior, verbose=True)
    assert "ess_bulk" not in brief
    assert "with -v" in brief
    assert "n  mean" in brief
    assert list(statistics(posterior.rows[0])) == ["n"]
    order = [whole.index(part) for part in ("mass", "log evidence", "verdict", "details", "ess_bulk")]
    assert order == sorted(order)


def test_options_that_do_not_fit_are_counted(tiny_folder):
    narrow = shown(chosen(tiny_folder), width=46)
    assert "option(s) more" in narrow
    assert all(len(line) <= 46 for line in narrow.splitlines())


def test_long_texts_of_several_latents_stand_beneath_each_other(tiny_folder):
    posterior = chosen(tiny_folder, rows=ROWS[:1])
    (row,) = posterior.rows
    long = {"A": "one " * 30, "B": "two " * 30}
    draws = [dataclasses.replace(draw, values=long) for draw in row.draws]
    row = RowPosterior(row.givens, draws, row.log_evidence)
    lines = shown(dataclasses.replace(posterior, rows=[row]), width=80).splitlines()
    first = next(line for line in lines if "A 'one" in line)
    assert len(first) > 70
    assert max(map(len, lines)) <= 80


def test_texts_stay_texts(tiny_folder):
    posterior = chosen(tiny_folder)
    rows = [dataclasses.replace(row, givens={HOSTILE: HOSTILE + str(n)}) for n, row in enumerate(posterior.rows)]
    for found in (rows, rows[:1]):
        text = shown(dataclasses.replace(posterior, rows=found))
        assert "[red]x[/]" in text
        assert not set("\x1b\x07\u202e") & set(text)


def test_infinity_is_no_dash():
    assert [number(value, 2) for value in (None, math.nan, -math.inf, -1.0, -1e-9)] == ["–", "–", "−∞", "-1.00", "0.00"]


def test_heads_lose_their_spaces_only_where_they_stay_distinct():
    assert legible([" a", " b"]) == ["a", "b"]
    assert legible([" a", "a"]) == [" a", "a"]
    assert legible([" ", "a"]) == [" ", "a"]


def test_an_error_of_few_replicates_has_its_interval_beside_it(tiny_folder):
    """Twice the standard error of four is too narrow: Student's interval is shown; an exact law's bounds are none."""
    run = chosen(tiny_folder, rows=ROWS[:1])
    (row,) = run.rows

    def with_interval(interval, error):
        one = dataclasses.replace(
            row, log_evidence=-18.4, log_evidence_se=error, diagnostics=Diagnostics(log_evidence_interval=interval)
        )
        found = dataclasses.replace(run, rows=[one])
        return shown(found), answer_html(found)

    for interval, words in (([-18.7, -18.2], "-18.700 to -18.200"), ([None, -18.2], "−∞ to -18.200")):
        text, page = with_interval(interval, 0.08)
        assert f"log evidence  -18.400 ± 0.080 nats, 95 %: {words}" in text
        assert f"nats, 95 %: {words.replace('-', '−')}" in page
    assert "95 %" not in "".join(with_interval([-18.7, -18.2], 0.0))


def test_predictions_tell_their_errors_and_what_their_entropy_is_of(tiny_folder):
    doubtful = Prediction(
        {" a": 0.75, " b": 0.25}, {" a": 0.0104, " b": None}, Estimate(0.56, 0.02), Estimate(0.5, 0.01),
        Estimate(0.06, 0.005), ("pareto_k",),
    )  # fmt: skip
    posterior = chosen(tiny_folder, rows=ROWS[:1])
    (row,) = posterior.rows
    found = dataclasses.replace(row, predictions={"Z": doubtful}, slopes={})
    told = dataclasses.replace(posterior, rows=[found])
    words = "0.560 ± 0.020 nats: 0.500 ± 0.010 is open, 0.060 ± 0.005 hangs on what was drawn; errors are not to be "
    texts = {"terminal": shown(told, 200), "page": answer_html(told), "notebook": told._repr_html_()}
    for where, text in texts.items():
        assert words + "believed (pareto_k)" in text, where
        assert "0.750 ± 0.010" in text, where
        assert "0.250 ± –" in text, where
    known = dataclasses.replace(doubtful, errors={" a": 0.0, " b": 0.0}, entropy=Estimate(0.56, 0.0), doubts=())
    exact = shown(dataclasses.replace(told, rows=[dataclasses.replace(found, predictions={"Z": known})]), 200)
    assert "' a' 0.750   ' b' 0.250" in exact
    assert "entropy  0.560 nats: " in exact


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_line_breaks_between_options_and_never_within(tiny_folder, width):
    """A text may hold spaces: one that is broken at them reads as two."""
    options = [*(f" a b {'a ' * number}" for number in range(5)), "b " * 30]
    shares = [0.4, *[0.1] * 5]
    found = Prediction(dict(zip(options, shares, strict=True)), dict.fromkeys(options, 0.01), Estimate(2.0, 0.1))
    posterior = chosen(tiny_folder, rows=ROWS[:1])
    told = dataclasses.replace(posterior, rows=[dataclasses.replace(posterior.rows[0], predictions={"Z": found})])
    lines = shown(told, width).splitlines()
    assert max(map(len, lines)) <= width
    for option, share in zip(options[:-1], shares, strict=False):
        assert any(f"{option!r} {share:.3f} ± 0.010" in line for line in lines)


def test_statistics_tell_their_slope(tiny_folder):
    text = f'lm LM = "{tiny_folder}"\nZ ~ LM(" a") max 2\nstatistic n = tokens(Z)\n'
    posterior = lmppl.compile(text).infer("importance", num_samples=20)
    slope = posterior.rows[0].slopes["n"]
    words = f", slope in the power {slope.value:.2f} ± {slope.error:.2f}"
    assert words in shown(posterior)
    assert words.replace("-", "−") in answer_html(posterior)
