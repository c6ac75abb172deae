"""Compare words of verdicts and of confidence in the prose with what the records say."""

from __future__ import annotations

import re
from collections.abc import Iterator

from helpers.claims.confidence import LEVELS
from helpers.claims.verdict import WORDS
from helpers.site.linting.prose import Page
from helpers.site.linting.sections import plain
from helpers.site.linting.senses import is_ordinary

Fault = tuple[int, str, str]
FOR = r"supported|confirmed|proven|proved|corroborated"
AGAINST = r"refuted|disproved|disproven|falsified|debunked"
OPEN = r"undecided|inconclusive|unresolved"
FAMILIES = {"SUPPORTED": re.compile(rf"\b(?:{FOR})\b"), "REFUTED": re.compile(rf"\b(?:{AGAINST})\b"),
            "UNDECIDED": re.compile(rf"\b(?:{OPEN})\b")}  # fmt: skip
CAPITALS = re.compile(rf"\b({'|'.join(WORDS)})\b")
CONFIDENCE = re.compile(
    rf"\b({'|'.join(LEVELS)})\b(?=\s+confidence)|(?i:confidence\W+(?:is\s+|of\s+)?)\b({'|'.join(LEVELS)})\b"
)
NEGATED = re.compile(
    r"\b(?:not|never|no|neither|nor|cannot|without|nothing|n't)\b[\s\w]{0,24}$|n't\s+\w*\s*$", re.IGNORECASE
)
END = re.compile(r"[.!?:;]\s")
CONDITIONAL = re.compile(r"\b(?:would|if|unless|whether|when|until|could|might|should)\b", re.IGNORECASE)
# These sections speak of other work, of rules or of plans, not of this verdict.
ELSEWHERE = frozenset(
    map(str.casefold, ("Background", "Methodology", "Next steps", "Source issues", "Question", "Criteria"))
)


def faults(page: Page, verdicts: set[str], confidence: str) -> Iterator[Fault]:
    """Yield every word that contradicts the verdict or the confidence.

    ``verdicts`` are two where records are stale: STALE, and the verdict that held for them.
    """
    verdict = " or ".join(sorted(verdicts))
    for line, text in enumerate(page.lines, start=1):
        if any(plain(heading.text) in ELSEWHERE for heading in page.section_of(line)):
            continue
        for match in CAPITALS.finditer(text):
            if match.group(1) not in verdicts and not CONDITIONAL.search(text[: match.start()]):
                yield (
                    line,
                    "verdict",
                    f"{match.group(1)!r} is written, but the verdict is {verdict}: show it, do not type it.",
                )
        for match in CONFIDENCE.finditer(text):
            level = match.group(1) or match.group(2)
            if level != confidence:
                yield (
                    line,
                    "confidence",
                    f"confidence {level} is written, but it is {confidence}: show it, do not type it.",
                )
        yield from _families(page, line, text, verdicts)


def _families(page: Page, line: int, text: str, verdicts: set[str]) -> Iterator[Fault]:
    before, after = (page.lines[at] if 0 <= at < len(page.lines) else "" for at in (line - 2, line))
    for says, pattern in FAMILIES.items():
        for match in pattern.finditer(text):
            sentence = END.split(f"{before} {text[: match.start()]}")[-1]
            rest = END.split(f"{text[match.end() :]} {after} ")[0]
            if CONDITIONAL.search(sentence) or is_ordinary(match.group(), sentence, rest):
                continue
            negated = bool(NEGATED.search(sentence))
            if (says in verdicts) == negated:
                meant = f"not {match.group()}" if negated else match.group()
                word = " or ".join(sorted(verdicts))
                yield (
                    line,
                    "verdict",
                    f"{meant!r} contradicts the verdict, which is {word}: say what the records say, or choose another "
                    "word if no verdict is meant.",
                )
