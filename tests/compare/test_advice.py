"""What a comparison advises: the best engine whose checks hold, and among equals the soundest and cheapest."""

from lmppl.compare.advice import advise


def entry(label, tv, verdict="pass", worth=1.0, training=None, **more):
    measured = {"total_variation": tv, "efficiency": worth, "seconds": 1.0}
    return {
        "label": label, "engine": more.pop("engine", label), "reason": None, "verdict": verdict,
        "findings": [f"{verdict} ess: few draws."] if verdict != "pass" else [], "training": training,
        "measures": {k: {"mean": v, "low": v, "high": v} for k, v in measured.items()}, **more,
    }  # fmt: skip


def chosen(*entries):
    return advise(entries, "exact")["label"]


def test_the_best_is_taken():
    assert chosen(entry("a", 0.3), entry("b", 0.1), entry("c", 0.6)) == "b"


def test_among_equals_checks_decide_then_what_draws_are_worth():
    assert chosen(entry("a", 0.100, "warn", 9), entry("b", 0.105, worth=2), entry("c", 0.110, worth=3)) == "c"
    assert chosen(entry("a", 0.1, worth=9, training={"tokens": 1e6}), entry("b", 0.11)) == "b"


def test_engines_whose_checks_fail_are_not_advised():
    found = advise([entry("a", 0.05, "fail"), entry("b", 0.4, "fail")], "exact")
    assert found["label"] is None
    assert "a comes closest" in found["reasons"][0]


def test_without_a_reference_prompting_is_not_advised():
    found = advise([entry("p", 0.0, worth=99, engine="prompting"), entry("b", 0.0)], "none")
    assert found["label"] == "b"
    assert found["headline"] == "Use b, with care."


def test_nothing_ran():
    found = advise([{**entry("a", 0.1), "reason": "no memory"}], "exact")
    assert found["reasons"] == ["a: no memory"]


def test_reasons_name_who_is_behind_and_who_is_apart():
    reasons = " ".join(
        advise([entry("x=y", 0.05, engine="mcmc"), entry("b", 0.2), entry("c", 0.9)], "exact")["reasons"]
    )
    assert "lowest of 3 engines" in reasons
    assert "Behind it: b at 0.200." in reasons
    assert "c: more than half of the mass is elsewhere." in reasons
