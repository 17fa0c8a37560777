"""Which engine to take, and why, in sentences that stand by themselves. Reads the table's entries
only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lmppl.engines import traits

QUALITY = {"exact": "total_variation", "gold": "kolmogorov"}
SAID = {
    "total_variation": "Its total variation to the exact posterior",
    "kolmogorov": "The distance (KS) of its log densities from gold's",
}
ORDER = {"pass": 0, "warn": 1, "fail": 2}
CLOSE = 0.02  # differences that decide nothing


def advise(entries: Sequence[Mapping[str, Any]], kind: str) -> dict[str, Any]:
    """The label to use (None: none can be trusted), a headline, and reasons."""
    ran = [entry for entry in entries if entry["reason"] is None]
    if not ran:
        return _advice(None, "No engine ran.", [f"{e['label']}: {e['reason']}" for e in entries])
    quality = QUALITY.get(kind)
    if quality is None:
        return _without_reference(ran)
    known = [entry for entry in ran if _mean(entry, quality) is not None]
    if not known:
        return _advice(
            None, "No engine's draws can be compared.", ["None gave draws that the program allows."]
        )
    ranked = sorted(known, key=lambda entry: (_mean(entry, quality), _mean(entry, "seconds") or 0))
    best = _cheapest([entry for entry in ranked if _as_good(entry, ranked[0], quality)])
    reasons = [f"{SAID[quality]} is {_shown(best, quality)}{_rank(best, ranked, quality)}."]
    reasons += _others(best, ranked, quality)
    if best["verdict"] == "fail":
        headline = "No engine can be trusted yet."
        reasons.insert(0, f"{best['label']} comes closest, and its own checks fail: {_first(best)}")
        return _advice(None, headline, reasons)
    if best["verdict"] == "warn":
        reasons.append(f"Its own checks warn: {_first(best)}")
    return _advice(best["label"], f"Use {_named(best)}.", [*reasons, *_price(best, ran)])


def _without_reference(ran: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By verdict, then by what draws are worth."""
    sound = [
        entry
        for entry in ran
        if entry["verdict"] != "fail" and traits(entry["engine"]).caveat is None
    ]
    if not sound:
        return _advice(
            None, "No engine can be trusted yet.", [f"{e['label']}: {_first(e)}" for e in ran]
        )
    best = min(sound, key=lambda e: (ORDER[e["verdict"]], -(_mean(e, "efficiency") or 0)))
    reasons = [f"Its checks {best['verdict']}, and there is no reference to hold draws against."]
    return _advice(best["label"], f"Use {_named(best)}, with care.", [*reasons, *_price(best, ran)])


def _advice(label: str | None, headline: str, reasons: Sequence[str]) -> dict[str, Any]:
    return {"label": label, "headline": headline, "reasons": list(reasons)}


def _named(entry: Mapping[str, Any]) -> str:
    return (
        entry["label"]
        if entry["label"] == entry["engine"]
        else f"{entry['label']} ({entry['engine']})"
    )


def _mean(entry: Mapping[str, Any], key: str) -> float | None:
    return entry["measures"].get(key, {}).get("mean")


def _as_good(entry: Mapping[str, Any], best: Mapping[str, Any], quality: str) -> bool:
    """Whether seeds cannot tell the two apart by more than CLOSE, and its checks are no worse."""
    if ORDER[entry["verdict"]] > ORDER[best["verdict"]]:
        return False
    gap = (_mean(entry, quality) or 0) - (_mean(best, quality) or 0)
    return gap <= CLOSE


def _cheapest(entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Of engines that are equally good, the one with the best verdict, then untrained, then worth
    most a token.
    """
    return max(
        entries,
        key=lambda e: (-ORDER[e["verdict"]], e["training"] is None, _mean(e, "efficiency") or 0),
    )


def _shown(entry: Mapping[str, Any], key: str) -> str:
    found = entry["measures"][key]
    if found["low"] is None:
        return f"{found['mean']:.3f}"
    return f"{found['mean']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def _rank(best: Mapping[str, Any], ranked: Sequence[Mapping[str, Any]], quality: str) -> str:
    if len(ranked) == 1:
        return ""
    if best is ranked[0]:
        return f", the lowest of {len(ranked)} engines"
    return (
        f", as good as the lowest ({ranked[0]['label']}, {_shown(ranked[0], quality)}) as far "
        f"as can be told"
    )


def _others(
    best: Mapping[str, Any], ranked: Sequence[Mapping[str, Any]], quality: str
) -> list[str]:
    """How far behind the next ones are, and which are so wrong that their draws are not the
    posterior's.
    """
    others = [entry for entry in ranked if entry is not best]
    near = [e for e in others if _as_good(e, best, quality)]
    far = [e for e in others if (_mean(e, quality) or 0) > 0.5]
    between = [e for e in others if e not in near and e not in far]
    lines = []
    if near:
        lines.append(
            f"{_listed(near)} cannot be told from it; its checks, or what its draws are "
            f"worth a "
            f"token, decide."
        )
    if between:
        lines.append(
            "Behind it: "
            + ", ".join(f"{e['label']} at {_mean(e, quality):.3f}" for e in between)
            + "."
        )
    if far:
        lines.append(f"{_listed(far)}: more than half of the mass is elsewhere.")
    return lines


def _price(best: Mapping[str, Any], ran: Sequence[Mapping[str, Any]]) -> list[str]:
    worth = _mean(best, "efficiency")
    lines = []
    if worth is not None and len(ran) > 1:
        lines.append(f"1,000 tokens of it are worth {worth:.1f} independent draws.")
    if best["training"] is not None:
        lines.append(
            f"It was trained first: {best['training']['tokens']:,.0f} tokens, which pay off "
            f"over "
            f"many draws."
        )
    return lines


def _listed(entries: Sequence[Mapping[str, Any]]) -> str:
    names = [entry["label"] for entry in entries]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _first(entry: Mapping[str, Any]) -> str:
    return (
        entry["findings"][0].partition(" ")[2] if entry["findings"] else "its checks do not pass."
    )
