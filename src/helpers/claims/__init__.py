"""Claims that cannot drift: criteria, verdicts, confidence and facts, all computed from records.

    case = claims.open_case("reports/lr-epochs-band.qmd")
    case.verdict().word, case.confidence().stated, case.fact("source_rate", lr=1e-4, epochs=10, tail="newline")

``claim`` reads the block of a page, ``criteria`` the pre-registered outcomes (``marked`` keeps their lines),
``evidence`` pools records into cells, ``conditions`` judges them in the ``logic`` of three values, ``verdict`` and
``confidence`` sum up, ``challenge`` asks again in all other ``ways`` to analyse the records, ``facts`` puts numbers on
the page, and ``case`` ties a page to all of these.
"""

from helpers.claims.case import Case, open_case
from helpers.claims.claim import Claim, has_claim, read_claim
from helpers.claims.criteria import Criteria, read_criteria
from helpers.claims.facts import Fact, Facts
from helpers.claims.verdict import Verdict

__all__ = [
    "Case", "Claim", "Criteria", "Fact", "Facts", "Verdict",
    "has_claim", "open_case", "read_claim", "read_criteria",
]  # fmt: skip
