"""Checking what stands behind `when`: a truth about params, givens and choices."""

from __future__ import annotations

from lmppl.findings import branches as findings
from lmppl.language import ast
from lmppl.language.expression_checks import check_kind, kind_of, value_names
from lmppl.language.scope import TEXT_LATENT, Scope


def check_guard(scope: Scope, guard: ast.Expression | None) -> None:
    """A truth that is known before what it guards. The choices that it reads have a part in it."""
    if guard is None:
        return
    names = [*value_names(guard)]
    texts = [name for name in names if _is_of_texts(scope, name.text)]
    for name in texts:
        scope.used.add(name.text)
        scope.add(findings.guard_on_text(scope.source, name.span, name.text))
    if not texts:
        check_kind(scope, guard, kind_of(scope, guard), "boolean", "what `when` takes")
    scope.link(name.text for name in names)


def _is_of_texts(scope: Scope, name: str) -> bool:
    """Whether a name is a text latent, or derived from one."""
    return any(scope.has_role(latent, TEXT_LATENT) for latent in scope.latents_of([name]))
