"""Several processes that train one policy: who does which rows, and one mean of their gradients.

They are started by `accelerate launch` or `torchrun`; alone, a process is all of them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Processes:
    """This process among all. accelerator: Accelerate's, where there are several."""

    index: int = 0
    count: int = 1
    accelerator: Any = None

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and reports."""
        return self.index == 0

    def share(self, items: Sequence[int]) -> list[int]:
        """The items that are this process's; where there are fewer than processes, all do them
        all.
        """
        return list(items[self.index :: self.count]) if len(items) >= self.count else list(items)

    def average(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Replace every gradient by its mean over processes."""
        if self.count == 1:
            return
        for parameter in parameters:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = self._sum(gradient) / self.count

    def any(self, flag: bool) -> bool:
        """Whether a flag is set in some process: all get the same answer."""
        return flag if self.count == 1 else float(self._sum(torch.tensor(float(flag)))) > 0

    def agree(self, values: torch.Tensor) -> torch.Tensor:
        """The mean over processes of values, those that a process does not know, NaN, left out."""
        if self.count == 1:
            return values
        return self._sum(values.nan_to_num()) / self._sum((~values.isnan()).double())

    def gather(self, text: str) -> list[str]:
        """A text of every process, in their order."""
        if self.count == 1:
            return [text]
        from accelerate.utils import gather_object

        return gather_object([text])

    def _sum(self, values: torch.Tensor) -> torch.Tensor:
        """Over processes, which can send what lies on their devices."""
        return self.accelerator.reduce(values.to(self.accelerator.device), reduction="sum").to(
            values.device
        )

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            self.accelerator.wait_for_everyone()


def processes() -> Processes:
    """The processes that this one was started with."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes()
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    return Processes(accelerator.process_index, accelerator.num_processes, accelerator)
