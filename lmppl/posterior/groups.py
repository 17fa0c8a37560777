"""A data row's draws in the groups that ArviZ knows, as arrays (chain, draw).

`posterior` holds numbers only, since a text there stops ArviZ's summary: texts are in `text`, and
choices are codes. ArviZ counts all draws alike, so weighted draws are resampled by weight.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray
from numpy.typing import NDArray

from lmppl.decoding import Purpose, Randomness
from lmppl.diagnosis import chain_shape
from lmppl.engines import resample
from lmppl.errors import LmpplError, error
from lmppl.language import ast, parse
from lmppl.posterior.columns import Key, Record, column_names, records
from lmppl.posterior.result import Result, RowPosterior
from lmppl.screen import named
from lmppl.source import Source

Groups = Mapping[str, xarray.Dataset]
Names = Mapping[Key, str]
ABSENT_CODE = -1  # of a choice that a draw has not
Columns = dict[str, tuple[Any, dict[str, str]]]  # values of the draws and attributes, by name


def groups(posterior: Result, number: int, row: RowPosterior) -> Groups:
    """The groups of a row that has draws; one with nothing in it is empty."""
    raw = records(number, row)
    kept = [raw[i] for i in _kept(row, Randomness(posterior.seed, number))]
    names = column_names(raw[0])
    latents = [Key("value", name) for name in row.draws[0].values]
    derived = [Key("derived", name) for name in row.draws[0].derived]
    options: dict[Key, list[str]] = {}
    for key, texts in _options(posterior.program):
        if key in latents:  # arms of one name have their options together
            options[key] = [*dict.fromkeys([*options.get(key, []), *texts])]
    shape = chain_shape(row.draws)
    return {
        "posterior": _dataset({**_numbers(kept, names), **_codes(kept, names, options)}, shape),
        "sample_stats": _dataset(_sample_stats(kept), shape),
        "text": _dataset(_texts(kept, names, [*latents, *derived]), shape),
        "constant_data": _constant_data(row, names),
    }


def is_weighted(row: RowPosterior) -> bool:
    """Whether some draws weigh more than others."""
    return len({draw.log_weight for draw in row.draws}) > 1


def _kept(row: RowPosterior, randomness: Randomness) -> NDArray[np.int64]:
    """Indices of as many draws as there are, each about as often as it weighs.

    Over all chains jointly, since replicates differ in mass. Copies stay side by side:
    autocorrelation then costs what the weights cost, and ArviZ's effective size is about that of
    the weights. Shuffled, they would look independent.
    """
    if not is_weighted(row):
        return np.arange(len(row.draws))
    log_weights = np.array([draw.log_weight for draw in row.draws])
    return resample(log_weights, len(log_weights), randomness.uniforms(0, 0, Purpose.EXPORT, 1)[0])


def _dataset(columns: Columns, shape: tuple[int, int]) -> xarray.Dataset:
    if not columns:
        return xarray.Dataset()
    variables = {
        name: (("chain", "draw"), np.reshape(values, shape), storable_attributes(about))
        for name, (values, about) in columns.items()
    }
    return xarray.Dataset(
        variables, coords={"chain": np.arange(shape[0]), "draw": np.arange(shape[1])}
    )


def _numbers(kept: Sequence[Record], names: Names) -> Columns:
    """Log density, factors, numbers of tokens, statistics. A statistic that a draw has not is
    NaN.
    """
    keys = [
        Key("own", "log_density"),
        *(key for key in names if key.kind in ("factor", "tokens", "statistic")),
    ]
    kinds = {key: np.int64 if key.kind == "tokens" else np.float64 for key in keys}
    found: Columns = {}
    for key in keys:
        values = np.array([record.get(key) for record in kept], kinds[key])
        found[names[key]] = values, {"long_name": key.name}
    return found


def _codes(kept: Sequence[Record], names: Names, options: Mapping[Key, list[str]]) -> Columns:
    """Choices as numbers of their options, which are in an attribute; -1 where there is none."""
    found: Columns = {}
    for key, texts in options.items():
        about = {"long_name": key.name, "options": json.dumps(texts, ensure_ascii=False)}
        values = [record[key] for record in kept]
        other = next((value for value in values if value not in (None, *texts)), None)
        if other is not None:
            help = "bring the run's files back from a copy; or remove them, and run it again"
            message = (
                f"the run is damaged: a draw of `{key.name}` is {other!r:.80}, which is "
                f"none of its options"
            )
            raise LmpplError(error("broken-run", message, help=help))
        codes = [ABSENT_CODE if value is None else texts.index(value) for value in values]
        found[names[key]] = np.array(codes, np.int64), about
    return found


def _options(program: Mapping[str, Any]) -> Iterator[tuple[Key, list[str]]]:
    """Choices of a program and their options: from its tree, for which none of its files need be
    there.
    """
    tree, _ = parse(Source(program["path"], program["text"]))
    for statement in tree.statements:
        if isinstance(statement, ast.Sample) and statement.choices is not None:
            yield (
                Key("value", statement.name.text),
                [option.value for option in statement.choices.options],
            )


def _sample_stats(kept: Sequence[Record]) -> Columns:
    """What belongs to a draw beside its values; `source_` says which of the run's draws it is."""
    sources = {
        "lp": ("log_density", np.float64),
        "log_weight": ("log_weight", np.float64),
        "log_proposal": ("log_proposal", np.float64),
        "source_chain": ("chain", np.int64),
        "source_draw": ("draw", np.int64),
    }
    found: Columns = {}
    for name, (column, kind) in sources.items():
        values = [record[Key("own", column)] for record in kept]
        if None not in values:
            found[name] = np.array(values, kind), {"long_name": column}
    return found


def _texts(kept: Sequence[Record], names: Names, keys: Sequence[Key]) -> Columns:
    """Texts of latents, and derived values as texts."""
    found: Columns = {}
    for key in keys:
        values = np.array([storable(named(record[key])) for record in kept])
        found[names[key]] = values, {"long_name": key.name}
    return found


def _constant_data(row: RowPosterior, names: Names) -> xarray.Dataset:
    """Givens, and observed latents: a number or a text each, and NaN where there is none."""
    values = {names[Key("value", name)]: value for name, value in row.givens.items()}
    return xarray.Dataset({name: ((), _constant(value)) for name, value in values.items()})


def _constant(value: Any) -> str | float:
    if isinstance(value, str):
        return storable(value)
    return np.nan if value is None else float(value)


def storable(text: str) -> str:
    """A text as netCDF can hold it: in place of each NUL character stands a picture of it."""
    return text.replace("\0", "␀")


def storable_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes, their texts as netCDF can hold them."""
    return {
        name: storable(value) if isinstance(value, str) else value
        for name, value in attributes.items()
    }
