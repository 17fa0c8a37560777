"""How scores are put together, for arrays and for tensors with gradients alike. All in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray


class Folding(Protocol):
    """What a kind of latent or factor does with what models say, whatever holds the numbers."""

    def sum_of(self, weights: Sequence[float], parts: Sequence[Any]) -> Any:
        """(R,) Σ weight · part."""
        ...

    def by_owner(self, owners: Sequence[int], values: Any, count: int) -> Any:
        """(count,) the sum of the values that belong to each state."""
        ...

    def normalised(self, scores: Any, options: int) -> Any:
        """(N, options) log law of scores (N · options,); -inf where no option of a row is possible:
        there is no law then, and whoever reads one is impossible.
        """
        ...

    def mixed(self, log_weights: Sequence[float], parts: Sequence[Any]) -> Any:
        """(R,) log Σ exp(log weight + part)."""
        ...

    def where(self, condition: NDArray[np.bool_], values: Any) -> Any:
        """(N,) the values, and -inf where the condition does not hold."""
        ...

    def placed(self, rows: Sequence[int], values: Any, count: int) -> Any:
        """(count, …) values (R, …) at these rows, and 0 elsewhere."""
        ...

    def or_none(self, table: Any, there: NDArray[np.bool_]) -> Any:
        """(N, options + 1) log laws (N, options) where there is a choice; else all is on the last
        place.
        """
        ...


class _Arrays:
    """Of NumPy."""

    def sum_of(self, weights: Sequence[float], parts: Sequence[Any]) -> Any:
        return np.sum([a * part for a, part in zip(weights, parts, strict=True)], axis=0)

    def by_owner(self, owners: Sequence[int], values: Any, count: int) -> Any:
        return np.bincount(np.asarray(owners, dtype=np.int64), values, minlength=count)

    def normalised(self, scores: Any, options: int) -> Any:
        table = scores.reshape(-1, options)
        total = np.logaddexp.reduce(table, axis=1, keepdims=True)
        return table - np.where(np.isneginf(total), 0.0, total)

    def mixed(self, log_weights: Sequence[float], parts: Sequence[Any]) -> Any:
        return np.logaddexp.reduce(
            [log_weight + part for log_weight, part in zip(log_weights, parts, strict=True)]
        )

    def where(self, condition: NDArray[np.bool_], values: Any) -> Any:
        return np.where(condition, values, -np.inf)

    def placed(self, rows: Sequence[int], values: Any, count: int) -> Any:
        whole = np.zeros((count, *values.shape[1:]))
        whole[list(rows)] = values
        return whole

    def or_none(self, table: Any, there: NDArray[np.bool_]) -> Any:
        whole = np.full((len(table), table.shape[1] + 1), -np.inf)
        whole[there, :-1], whole[~there, -1] = table[there], 0.0
        return whole


class _Tensors:
    """Of torch; gradients go through."""

    def sum_of(self, weights: Sequence[float], parts: Sequence[Any]) -> Any:
        return torch.stack([a * part for a, part in zip(weights, parts, strict=True)]).sum(0)

    def by_owner(self, owners: Sequence[int], values: Any, count: int) -> Any:
        index = torch.as_tensor(np.asarray(owners, dtype=np.int64), device=values.device)
        return torch.zeros(count, dtype=values.dtype, device=values.device).index_add(
            0, index, values
        )

    def normalised(self, scores: Any, options: int) -> Any:
        table = scores.view(-1, options)
        none = torch.isneginf(table).all(-1, keepdim=True)
        law = torch.log_softmax(table.masked_fill(none, 0.0), -1)
        return law.masked_fill(none, -torch.inf)

    def mixed(self, log_weights: Sequence[float], parts: Sequence[Any]) -> Any:
        added = [log_weight + part for log_weight, part in zip(log_weights, parts, strict=True)]
        return torch.logsumexp(torch.stack(added), 0)

    def where(self, condition: NDArray[np.bool_], values: Any) -> Any:
        kept = torch.as_tensor(condition, device=values.device)
        return values.masked_fill(~kept, -torch.inf)

    def placed(self, rows: Sequence[int], values: Any, count: int) -> Any:
        index = torch.tensor(list(rows), dtype=torch.long, device=values.device)
        return values.new_zeros((count, *values.shape[1:])).index_copy(0, index, values)

    def or_none(self, table: Any, there: NDArray[np.bool_]) -> Any:
        kept = torch.as_tensor(there, device=table.device)[:, None]
        none = table.new_zeros((len(table), 1)).masked_fill(kept, -torch.inf)
        return torch.cat([table.masked_fill(~kept, -torch.inf), none], 1)


ARRAYS: Folding = _Arrays()
TENSORS: Folding = _Tensors()
