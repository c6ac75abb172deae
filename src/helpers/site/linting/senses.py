"""Words of a verdict in a sense that has nothing to do with one: software supports a format, a link is unresolved.

Only a sentence that can be read in no other way is let through. A verdict is spoken of something that may be true or
false (a claim, a band, an effect) and rests on evidence (runs, records, seeds). So the word is an ordinary one where it
is said of a concrete thing, or where a program by name does the supporting, and the sentence names neither a claim nor
evidence.
"""

from __future__ import annotations

import re

CLAIM = re.compile(
    r"\b(?:answer|assertion|assumption|belief|claim|conclusion|conjecture|effect|expectation|explanation|finding|"
    r"hypothes[ei]s|idea|notion|prediction|proposition|question|reading|statement|suspicion|theory|thesis|verdict|"
    r"view)s?\b",
    re.IGNORECASE,
)
EVIDENCE = re.compile(
    r"\b(?:analys[ei]s|cell|comparison|completion|count|criteri(?:on|a)|data|difference|evaluation|evidence|experiment|"
    r"figure|interval|measurement|metric|number|observation|outcome|page|point|rate|record|replication|result|run|"
    r"sample|score|seed|study|studies|sweep|table|test|trial)s?\b",
    re.IGNORECASE,
)
THINGS = re.compile(
    r"(?:adapter|api|architecture|argument|attention|backend|batching|bf16|bfloat16|browser|cache|caching|character|"
    r"checkpoint|checkpointing|cluster|codec|command|compiler|cpu|decoding|device|dialect|directory|distribution|"
    r"driver|dtype|encoding|engine|environment|extension|feature|field|file|filesystem|flag|float16|float32|"
    r"folder|format|fp16|fp32|fp8|function|generation|gguf|gpu|hardware|header|int4|int8|interface|interpreter|"
    r"kernel|key|language|layer|library|linux|locale|lora|machine|macos|mode|model|module|node|notation|notebook|"
    r"onnx|operation|operator|optimiser|optimizer|option|package|parallelism|parameter|parquet|path|pickle|"
    r"platform|plugin|precision|preset|processor|protocol|quantisation|quantization|release|renderer|resume|"
    r"resuming|rslora|safetensor|sampling|scheduler|scheme|script|setting|shell|streaming|suffix|syntax|system|"
    r"template|tensor|terminal|tokenizer|tool|type|url|version|widget|windows|worker)s?",
    re.IGNORECASE,
)
LINKS = re.compile(
    r"(?:addresse?|conflict|dependenc(?:y|ie)|host|import|link|name|path|placeholder|reference|symbol)s?",
    re.IGNORECASE,
)
SENT = re.compile(
    r"(?:addresse?|checksum|connection|copy|delivery|download|file|hashe?|key|signature|transfer|upload)s?",
    re.IGNORECASE,
)
TOOLS = re.compile(
    r"\b(?:altair|chromium|cuda|debian|firefox|flashattention|fsspec|git|jupyter(?:lab)?|jupytext|llama\.cpp|mlx|"
    r"nbclient|numpy|pandas|pandoc|papermill|peft|pyarrow|python|pytorch|quarto|ray|rocm|safetensors|slurm|torch|"
    r"transformers|triton|vega|vllm)\b",
    re.IGNORECASE,
)
ORDINARY = {"supported": THINGS, "unresolved": LINKS, "confirmed": SENT}
"""Word -> the concrete things of which it is said without a verdict being meant."""

NOTHING = re.compile(r"(?!)")
COPULA = re.compile(
    r"\b(?:(?:is|are|was|were)(?:n't)?|be|been|being|remains?|stays?)\b(?:\s+(?:not|also|already|always|both|even|fully|"
    r"long|longer|never|no|now|only|still|yet|\w+ly)\b)*\s*$",
    re.IGNORECASE,
)
PREPOSITION = re.compile(
    r"\b(?:about|after|against|among|at|before|behind|beside|between|by|during|for|from|in|into|like|of|on|over|through|"
    r"to|under|with|within|without)\b",
    re.IGNORECASE,
)
END_OF_A_NOUN = re.compile(
    rf"{PREPOSITION.pattern}|\b(?:as|because|but|if|since|so|than|that|what|when|where|which|while|who|whose|why)\b",
    re.IGNORECASE,
)
WORD = re.compile(r"[\w.-]*\w")


def is_ordinary(word: str, before: str, after: str) -> bool:
    """Return whether ``word`` between these parts of its sentence cannot be the word of a verdict."""
    if CLAIM.search(before) or CLAIM.search(after):
        return False
    things = ORDINARY.get(word, NOTHING)
    if not COPULA.search(before) and any(map(things.fullmatch, _nouns_behind(after))):
        return True
    if EVIDENCE.search(re.split(r"[,()—–]", after, maxsplit=1)[0]):
        return False
    if word == "supported" and (agent := re.match(r"\s+by\b(.{1,40})", after)) and TOOLS.search(agent[1]):
        return True
    if word in ("proved", "proven"):
        return bool(re.match(r"\s+(?:to be\s+)?too\s", after))  # "eight steps proved too few"
    return all(map(things.fullmatch, _subjects(before)))


def _nouns_behind(after: str) -> list[str]:
    """The words right behind, of which ``supported`` may be the adjective: "supported file formats"."""
    phrase = END_OF_A_NOUN.split(re.split(r"[^\w\s.-]", after, maxsplit=1)[0], maxsplit=1)[0]
    return WORD.findall(phrase)[:3] if after[:1].isspace() else []


def _subjects(before: str) -> list[str]:
    """What the word is said of: the head of each noun phrase of the subject, "" for one that cannot be told."""
    clause = re.split(r"[,()—–|]\s*(?:(?:and|but|nor|or|so|then)\b)?", COPULA.sub("", before))[-1].strip()
    opening = PREPOSITION.match(clause)
    phrase = clause[opening.end() :] if opening else END_OF_A_NOUN.split(clause, maxsplit=1)[0]
    return [(WORD.findall(part) or [""])[-1] for part in re.split(r"\b(?:and|or|nor)\b", phrase)]
