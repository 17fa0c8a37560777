"""Findings of runs that learn, resume or keep to a budget: one function each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lmppl.errors import Diagnostic, did_you_mean, error, warning
from lmppl.settings import FORMS
from lmppl.source import Source, Span

if TYPE_CHECKING:
    pass


def nothing_to_learn(engine: str, imitates: bool) -> Diagnostic:
    """No row has anything that an engine could learn from."""
    if imitates:
        message, help = (
            "no row has the text of a latent to imitate",
            "add a column with the latent's name to the data",
        )
    else:
        message, help = (
            "the rows observe every latent",
            "leave the latent out of some rows, or run another engine",
        )
    return error("nothing-to-learn", f"`{engine}` has nothing to learn: {message}", help=help)


def engine_learns_nothing(engine: str) -> Diagnostic:
    """What was learned, or is to go on, is given to an engine that learns nothing."""
    help = (
        "--adapter and --resume are for gflownet, ppo and sft; annealed, importance, mcmc "
        "take `-o proposal=FOLDER`"
    )
    return error(
        "learns-nothing", f"`{engine}` does not draw from what another run has learned", help=help
    )


def no_proposal(folder: str, reason: str) -> Diagnostic:
    """The folder of `-o proposal=` holds nothing that was learned."""
    return error(
        "no-proposal", f"what was learned into `{folder}` is no proposal for this program: {reason}"
    )


def learned_of_other_latents(
    folder: Path, trained: Sequence[str], latents: Sequence[str]
) -> Diagnostic:
    """An adapter was learned for latents that are not the program's."""
    return error(
        "learned-elsewhere",
        f"what was learned into `{folder}` draws none of this program's latents",
        expected=" or ".join(f"`{name}`" for name in latents),
        found=" and ".join(f"`{name}`" for name in trained),
    )


def proposal_not_read(folder: str) -> Diagnostic:
    """A target was not lent the trained proposal that the options name."""
    return error(
        "no-proposal",
        f"`{folder}` has not been read: nobody has lent the target what was learned",
        help=(
            "`lmppl run` and `lmppl sbc` read it; in Python, "
            "`lmppl.engines.amortised.proposing.lender` does"
        ),
    )


def adapter_and_resume() -> Diagnostic:
    """`--adapter` draws from what was learned, `--resume` learns on: not both."""
    help = "--adapter draws from what was learned; --resume goes on learning"
    return error("adapter-and-resume", "--adapter and --resume exclude each other", help=help)


def budget_too_small(engine: str, budget: str, draws: int) -> Diagnostic:
    """A budget ends before the first small run. draws: of a chain, that it was to make."""
    message = f"`{engine}` cannot make {draws} draws a chain within {budget}"
    return error(
        "budget-too-small", message, help="give it more with --budget, or take another --engine"
    )


def bad_budget(found: str) -> Diagnostic:
    """A text is no budget."""
    return error(
        "bad-budget", f"--budget cannot be {found!r}", expected=f"{FORMS} or none", found=found
    )


def budget_and_resume() -> Diagnostic:
    """`--budget` sizes training anew, `--resume` goes on with its sizes: not both."""
    help = "training that is resumed has its number of steps already; -o steps=N takes another"
    return error("budget-and-resume", "--budget and --resume exclude each other", help=help)


def begun_anew(folder: str) -> Diagnostic:
    """A note: training that was to go on had kept nothing yet, and begins."""
    return warning(
        "begun-anew", f"`{folder}` holds no checkpoint yet: training begins from its first step"
    )


def nothing_to_resume(folder: str) -> Diagnostic:
    """A folder has no checkpoint to go on from."""
    return error(
        "nothing-to-resume",
        f"there is no checkpoint in `{folder}`",
        expected="a folder that `lmppl run --out` was training into",
        help="checkpoints are written every `save_every` steps; begin anew with --out",
    )


def unknown_tracker(name: str, known: Sequence[str]) -> Diagnostic:
    """There is no tracker of this name. known: those there are."""
    return error("unknown-tracker", f"there is no tracker `{name}`", help=did_you_mean(name, known))


def missing_tracker(name: str) -> Diagnostic:
    """A tracker's library is not installed."""
    return error(
        "missing-tracker",
        f"the tracker `{name}` is not installed",
        help=f"install its package: {name}",
    )


def tracker_without_folder(name: str) -> Diagnostic:
    """A tracker writes into the run's folder, and there is none."""
    return error(
        "missing-folder",
        f"the tracker `{name}` has no folder to write to",
        help="name one with --out",
    )


def cannot_stop_everywhere(reason: str, source: Source, span: Span) -> Diagnostic:
    """A loss needs texts that may end after every token, and this one may not."""
    help = "take -o objective=vargrad or tb, which look at whole draws only"
    return error(
        "engine-cannot", f"`subtb` cannot learn this program: {reason}", source, span, help=help
    )
