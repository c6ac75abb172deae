"""The page of findings: what a study shows that the work it repeats does not say, each with its proof."""

from __future__ import annotations

from markupsafe import Markup

from helpers.cases.case import Case, open_case
from helpers.show.markup import Block, verbatim
from helpers.site.blocks import badge

FOUND = Markup(
    '<p>{} <em>{}</em> {}</p>\n<p class="cb-caption">From {}, on the page <a href="{}">{}</a>, by the criteria in '
    "<code>{}</code>.</p>"
)


def found(page: str, *questions: str) -> Block:
    """Show what came of questions of a page: verdict and answer, the runs behind them and their criteria.

    Raises:
        ClaimError: no such page or question.
    """
    case = open_case(f"reports/{page}.qmd")
    return Block(Markup("\n").join(_found(case, question) for question in questions))


def _found(case: Case, name: str) -> Markup:
    verdict, asked = case.verdict(name), case.criteria.question(name)
    seen = len(case.evidence(name).within(asked.scope).records)
    shown = f"{seen} runs" if seen else "no run yet"
    href = case.path.with_suffix(".html").name
    said = [badge(verdict.word), verbatim(asked.question), verbatim(verdict.brief)]
    return FOUND.format(*said, shown, href, case.claim.slug, verbatim(case.claim.criteria))
