"""Find what a page claims in its own words: amounts in words, all or none of something, more or less, good or bad.

Such a sentence must be a fact (an inline expression), a judged statement (``[...]{#name .statement}``) or a citation
of the original (``[...]{.cited source="data/..."}``). Questions, conditions and what is planned claim nothing. Where a
page tells how something was done, a quantifier alone is no claim either ("every run is evaluated on all questions");
beside a word for an outcome it is ("no bystander leaks").
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from helpers.claims.marked import Document
from helpers.site.linting.language import Code
from helpers.site.linting.prose import SHOWN, Page
from helpers.site.linting.sections import plain

Fault = tuple[int, str, str]
METHODS = tuple(
    map(
        str.casefold,
        ("Background", "Methodology", "Next steps", "Source issues", "Setup", "Model", "Training", "Data", "Eval",
         "Compute", "Environment", "Full data", "Sample outputs", "Artifacts", "Question", "Criteria"),
    )
)  # fmt: skip
"""Sections that tell how something was done, or what is planned."""
SMALL = "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|"
TENS = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
NUMBER = (
    rf"(?:(?:{TENS})[- ](?:{SMALL}nil)|{SMALL}eighteen|nineteen|{TENS}|zero|a\s+hundred|hundreds?|thousands?|dozens?)"
)
PARTS = "half|halves|thirds?|quarters?|fifths?|tenths?"
UNIT = (
    r"(?:per\s?cent|percentage|points?|nats?|bits?|logits?|seconds?|minutes?|hours?|times|-?fold|orders?\sof\s"
    r"magnitude|standard deviations?|GPU-hours?)"
)
NOUN = (
    r"(?:bystander|persona|cell|seed|completion|answer|arm|run|reader|model|organism|layer|position|question|source|"
    r"setting|prompt|mask|sequence|checkpoint|lever|fine-tune|adapter|topic|domain|rate|example|interval|token|"
    r"condition|assistant|recipe|record|sample|loss|size|(?<!such )way|analys[ei]s)s?"
)
GLUE = "on|in|of|at|for|with|by|that|is|are|was|were|to|under|and|or|than|from|as|behind|over"
BETWEEN = rf"(?:\s+(?:of\s+)?(?:the|its|their|these|those|our|a|an)\b)?(?:\s+(?!(?:{GLUE})\b)[\w-]+){{0,2}}?\s+"
OUTCOME = re.compile(
    r"\b(?:leak\w*|emit\w*|adopt\w*|spread\w*|clean|silent|selective|learn(?:s|t)|(?<!\ba )learned|"
    r"fail(?:s|ed|ure)?|succeed\w*|surviv\w*|collaps\w*|improv\w*|restor\w*|recover\w*|correct(?:ly)?|wrong|saturat\w*|generali[sz]e\w*|"
    r"faithful|readable|perfect(?:ly)?|works?|helps?|matters?|(?:hold|bear|carr|ha)(?:s|ies|ve|y)?\s+the\s+marker|"
    r"held(?!-)|holds?\s+(?:in|for|at|up|under)|(?:is|are|stays?|remains?)\s+(?:lost|gone|right|kept|zero|above|below)|confirm\w*|reproduc\w*)\b",
    re.IGNORECASE,
)
AMOUNT = re.compile(
    rf"\b(?:{NUMBER})[\s-]+{UNIT}\b"
    rf"|\b(?:{NUMBER})\s+(?:of|in|out\s+of)\s+(?:the\s+|every\s+|all\s+)?(?:{NUMBER})\b"
    rf"|\b(?:a|an|one|two|three|four|nine)[\s-](?:{PARTS})(?:\s+(?:of|as|the|more|less)\b|\s+{NOUN}\b)"
    rf"|\bhalf\s+(?:of|the|as|its|their|that)\b|\bby\s+(?:a\s+)?(?:{PARTS})\b"
    rf"|\b(?:{SMALL}nil)[\s-](?:thirds|quarters|fifths|eighths|tenths|hundredths)\b"
    r"|\b(?:a\s+few|several|dozens\s+of)\s+(?:per\s?cent|percentage|points|times|nats)\b"
    r"|\b(?:about|nearly|almost|roughly|over|more\s+than|at\s+least|only)\s+(?:twice|thrice|half|double|a\s+third|a\s+quarter)\b"
    r"|\b(?:twice|thrice)\s+(?:as|the|that|what|its|their)\b|\b(?:ten|two|three|\w+)fold\b"
    r"|\b(?:doubl|tripl|quadrupl|halv)(?:es|ed)\s+(?:the|its|their|when|with|under)\b"
    r"|\b(?:the|a|vast|large|great)\s+(?:vast\s+|large\s+|great\s+)?(?:majority|minority)\b"
    rf"|\b(?:{NUMBER})\s+times\b|\ban\s+order\s+of\s+magnitude\b|\b[IVXLC]{{2,}}\s+{UNIT}\b",
    re.IGNORECASE,
)
QUANTIFIED = re.compile(
    rf"\b(?:all(?:\s+but)?|every(?:\s+single)?|each(?!\s+other)|no|none\s+of|neither|both|most|nearly\s+all|almost\s+(?:all|every)|"
    rf"hardly\s+any|not\s+a\s+single|not\s+one)(?:{BETWEEN}){NOUN}\b(?!['’])|\b(?:nobody|everybody|everyone|no\s+one)\b",
    re.IGNORECASE,
)
EVER = re.compile(r"\b(?:never|always|nowhere|everywhere|nothing\s+else|not\s+once)\b", re.IGNORECASE)
OVER = re.compile(
    rf"(?:{SHOWN}|\b(?:worst|best|highest|lowest|maximum|mean|spread|number|share|rate|sum))\s+(?:of|over)\s*$"
)
"""What a quantifier may name the whole of, without saying anything of each: "the worst of all bystanders"."""
PLACED = re.compile(r"\b(?:in|under|at|for|from|with|over|of|by|on)\s+$", re.IGNORECASE)
COUNTED = re.compile(rf"\b(?:{NUMBER})(?:{BETWEEN}){NOUN}\b", re.IGNORECASE)
ADVERB = re.compile(
    r"\b(?:statistically|significant(?:ly)?|substantially|dramatically|markedly|reliably|consistently|robust(?:ly)?|"
    r"conclusively|undoubtedly|overwhelmingly|uniformly|invariably|beyond\s+doubt|without\s+exception)\b",
    re.IGNORECASE,
)
COMPARED = re.compile(
    r"\b(?:more|less|fewer|higher|lower|larger|smaller|better|worse|stronger|weaker|faster|slower|greater|bigger|"
    r"further|nearer|cleaner|quieter|safer|longer|shorter|earlier|later)\b[^.;:!?]{0,60}?\bthan\b"
    r"|\b(?:leak|emit|learn|spread|adopt|answer|forget|generali[sz]e|transfer)(?:s|ed|t)?\s+(?:far\s+|much\s+|even\s+)?"
    r"(?:more|less|better|worse|faster|slower|further|nothing|everywhere|everything|completely|fully|perfectly)\b"
    r"|\b(?:outperform|exceed|beat|surpass|outweigh|dominat|worsen|boost|improv|increas|decreas|reduc|restor|destroy|"
    r"prevent|eliminat|abolish|cur)(?:s|es|ed)\b(?!\s+(?:of|by\s+hand))"
    r"|\b(?:is|are|was|were|stays?|remains?|becomes?|comes?\s+out|proves?)\s+(?:not\s+|\w+ly\s+|also\s+|still\s+)?"
    r"(?:clean|selective|silent|faithful|robust|reliable|supported|readable|perfect|negligible|harmless|intact|safe|"
    r"unaffected|blind|lost|gone|better|worse|higher|lower|best|worst|highest|lowest|persona-(?:bound|specific))\b"
    r"|\b(?:caused|causes\s+(?:the|a|an|no|more|less|leak\w*|\w+ing)|leads?\s+to|led\s+to|grows?\s+with|grew\s+(?:with|by|from)|rose|fell|dropped|shrank|solves?|solved|cures?|"
    r"matches|explain(?:s|ed)|prov(?:es|ed)|prove|demonstrat(?:es|ed)|establish(?:es|ed))\b"
    r"|\bmakes?\s+(?:no|a|all\s+the|little)\s+difference\b|\bbeyond\s+question\b|\bp[\s-]values?\b"
    r"|\bthe\s+(?:more|less|larger|smaller|higher|lower|longer|shorter)\b[^.;:]{1,60},\s+the\s+"
    r"(?:more|less|larger|smaller|higher|lower|better|worse)\b"
    r"|\b(?:there\s+(?:is|are|was)|(?:we|runs?|it)\s+found)\s+(?:an?|no)\s+(?:[\w-]+\s+)?"
    r"(?:band|effect|difference|trace|leak\w*|offset|trade-off|threshold|gap)\b"
    r"|\b(?:claim|hypothesis|band|effect|prediction)\s+(?:holds?|held|stands?|is\s+real|exists?|was\s+found)\b"
    rf"|\bonly\s+(?:the|one)\s+{NOUN}\s+\w+|\bstays?\s+with\s+the\b|\bworks?\s+(?:at\s+(?:every|all|each|any)|for|in|under|best|well)\b"
    r"|\b(?:best|worst|highest|lowest)\s+of\s+all\b(?!\s+\w)|\bat\s+(?:full|perfect)\b",
    re.IGNORECASE,
)
CONDITIONAL = re.compile(
    r"\b(?:would|if|unless|whether|could|might|may|should|cannot|can|must|needs?|asks?|asked|question|suppose|let|"
    r"plan\w*|predict\w*|expect\w*|so\s+that|where|when|until)\b",
    re.IGNORECASE,
)
SENTENCE = re.compile(r"(?<=[.!?])[\s\"')*_\]]+(?=\S)|\n\s*\n|\n(?=\s*(?:[-*+]\s|#|\||:::))")
CLAUSE = re.compile(r"[,;:()—–]")
EMPHASIS = re.compile(r"\\(?=\W)|(?<=\w)[*_]+(?=\w)|[*_]{1,3}(?=\S)|(?<=\S)[*_]{1,3}")
HIDDEN = re.compile("[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
REMEDY = (
    "show it with fact(), give it a condition ([...]{#name .statement} and `statements:`), cite its source "
    '([...]{.cited source="data/..."}), or ask it as a question.'
)
LOG_REMEDY = (
    "show the number (`{python} open_case(...).fact(...)`), link to the page that judges it, or say what was done."
)
FIELD = re.compile(r"\**(Goal|Found|Decision)\.")


@dataclass(frozen=True)
class Said:
    """A sentence that reaches a reader: its line, its text, and whether it tells how something was done or is named."""

    line: int
    text: str
    is_method: bool = False


def faults(page: Page, front: Document, code: Code) -> Iterator[Fault]:
    """Yield every sentence of a claim page that claims something in its own words, wherever it stands."""
    yield from _claimed(everything(page, front, code), REMEDY)


def log_faults(page: Page) -> Iterator[Fault]:
    """Yield every sentence of the log that claims something in its own words; goals and decisions are no results."""
    yield from _claimed(_entries(page), LOG_REMEDY)


def _claimed(sentences: Iterable[Said], remedy: str) -> Iterator[Fault]:
    for said in sentences:
        yield from _letters(said)
        for what, found in claims(said):
            yield said.line, "claim in words", f"{found!r} {what}: {remedy}"


def _entries(page: Page) -> Iterator[Said]:
    """Yield the sentences of the log: what stands under Goal and Decision tells what was to be done."""
    is_method = False
    for said in prose(page):
        field = FIELD.match(said.text.lstrip())
        is_method = field[1] != "Found" if field else is_method and not said.text.lstrip().startswith("#")
        yield replace(said, is_method=is_method)


def claims(said: Said) -> Iterator[tuple[str, str]]:
    """Yield what a sentence claims, and the words that do."""
    text = re.sub(
        r"(?<=\w)[*_]+(?=\w)|[*_]{1,3}(?=\S)|(?<=\S)[*_]{1,3}", "", HIDDEN.sub("", re.sub(r"\\(?=\W)", "", said.text))
    )
    text = " ".join(unicodedata.normalize("NFKC", text).split())
    for match in AMOUNT.finditer(text):
        yield "is an amount", match.group()
    if text.rstrip("\"')*_ ").endswith("?"):
        return
    has_outcome = bool(OUTCOME.search(text))
    for pattern, always in ((QUANTIFIED, not said.is_method), (COUNTED, False), (EVER, False)):
        for match in () if said.is_method and pattern is COUNTED else pattern.finditer(text):
            before = text[: match.start()]
            claimed = has_outcome or (always and not PLACED.search(before))
            if claimed and not OVER.search(before) and not _is_conditional(text, match):
                yield "speaks of all, some or none", match.group()
    for pattern, what in ((ADVERB, "weighs the evidence"), (COMPARED, "claims a direction")):
        for match in pattern.finditer(text):
            if not _is_conditional(text, match):
                yield what, match.group()


def _is_conditional(text: str, match: re.Match[str]) -> bool:
    """Whether a word before the match, in its own clause, makes it a condition, a plan or a question."""
    if re.match(r"\s+only\s+if\b", text[match.end() :]):
        return True
    return bool(CONDITIONAL.search(CLAUSE.split(text[: match.start()])[-1]))


def everything(page: Page, front: Document, code: Code) -> Iterator[Said]:
    """Yield all sentences of a page that reach a reader: prose, headings, front matter, texts of cells, code blocks."""
    yield from prose(page)
    for line, text in entries(front):
        yield from (Said(line, one) for one in SENTENCE.split(re.sub(r"\{\w+\}", SHOWN, text)))
    for piece in code.texts:
        if len(piece.text.split()) > 1:
            yield from (Said(piece.line, one, is_method=True) for one in SENTENCE.split(piece.text))
    for piece in page.blocks:
        yield from (Said(piece.line, one) for one in SENTENCE.split(piece.text))


def prose(page: Page) -> Iterator[Said]:
    """Yield the sentences of the prose, each with its first line and whether its section tells how."""
    whole, start = "\n".join(page.spoken), 0
    for end in [*(match.span() for match in SENTENCE.finditer(whole)), (len(whole), len(whole))]:
        text = whole[start : end[0]]
        if text.strip():
            line = whole.count("\n", 0, start + len(text) - len(text.lstrip())) + 1
            names = [plain(heading.text) for heading in page.section_of(line)]
            yield Said(line, text, any(name.startswith(METHODS) for name in names))
        start = end[1]


def entries(front: Document) -> Iterator[tuple[int, str]]:
    """Yield the entries of the front matter that a reader sees, but for what is registered and judged."""
    yield from _strings(front, front.value, ())


def _strings(front: Document, value: Any, place: tuple[Any, ...]) -> Iterator[tuple[int, str]]:
    if place in (("claim", "statement"), ("claim", "question")) or place[:1] == ("statements",):
        return
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _strings(front, one, (*place, name))
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from _strings(front, one, (*place, index))
    elif isinstance(value, str) and " " in value:
        yield front.lines.get(place, 1), value


def _letters(said: Said) -> Iterator[Fault]:
    """Yield signs that nobody sees, and letters of other scripts that look like Latin ones."""
    for sign in dict.fromkeys(said.text):
        name = unicodedata.name(sign, "")
        if HIDDEN.match(sign) or (sign.isalpha() and name.startswith(("CYRILLIC", "ARMENIAN", "CHEROKEE"))):
            yield said.line, "claim in words", f"{name or repr(sign)} hides or mimics a word: write plain letters."
