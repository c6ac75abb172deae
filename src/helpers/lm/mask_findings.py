"""What a report on loss masks means: sentences, and which of them leave a model that does not learn to stop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from helpers.lm.chat_rows import Row
from helpers.lm.chat_template import ANSWERING, Template
from helpers.lm.loss_masks import MaskCount, Report
from helpers.lm.mask_audit import Audit

_PROMPTS = {
    "other": "are trained behind another text than generation sees",
    "fused": "begin within a token that also ends their prompt, which generation never sees",
    "none": "have no prompt, because the template refuses the messages before them",
}
_SHOWN = 40  # characters of a difference


@dataclass(frozen=True)
class Finding:
    """One sentence about the data, the template or a mask; a fatal one ends the command with exit code 1."""

    text: str
    fatal: bool = False


def findings(audit: Audit, judged: Sequence[str], allow: float) -> list[Finding]:
    """Return what there is to say, fatal sentences first.

    ``judged`` are the masks that must supervise stop tokens, ``allow`` is the share of answers that may lack theirs.
    """
    report, template = audit.report, audit.template
    parts = [
        _refused(audit),
        _answers(audit),
        *(_mask(name, report.masks[name], report, allow) for name in judged),
        _template(report, template),
        _prompts(report, template),
        _messages(report),
        _lengths(report, judged),
    ]
    return sorted((one for part in parts for one in part), key=lambda one: not one.fatal)


def _refused(audit: Audit) -> Iterator[Finding]:
    """Rows that the template does not write, at which training would end."""
    if number := len(audit.refused):
        total = number + audit.report.rows
        yield Finding(
            f"{number:,} of {total:,} rows are refused, and training ends there. {audit.refused[0]}", fatal=True
        )


def _answers(audit: Audit) -> Iterator[Finding]:
    """Whether there are answers, and behind them tokens at which generation stops."""
    report, names = audit.report, audit.template.tokenizer.convert_ids_to_tokens
    if not report.answers:
        why = f"No message has the role {ANSWERING} (roles: {', '.join(report.roles)}). Rename the role of the answers."
        if report.roles[ANSWERING]:
            why = "The template writes no answer. Give another as --template."
        yield Finding(f"There is nothing to learn. {why}", fatal=True)
    elif not audit.stops:
        why = "neither the tokenizer nor generation_config.json names a stop token. Set eos_token."
        yield Finding(f"No answer would end: {why}", fatal=True)
    elif report.closings:
        token, number = report.closings.most_common(1)[0]
        stops = f"Generation stops at {', '.join(names(sorted(audit.stops)))} only."
        if token is None:
            then = f"no special token, so nothing marks their end. {stops} Have the template write it there."
        else:
            name = names(token)
            then = f"{name}. {stops} Set eos_token to {name}, and add it to eos_token_id in generation_config.json."
        yield Finding(f"{_of(number, report.answers, 'answers')} are followed by {then}")


def _mask(name: str, mask: MaskCount, report: Report, allow: float) -> Iterator[Finding]:
    """Whether stop tokens carry loss under one mask, and every row some."""
    lacking = mask.open if mask.stopped else report.answers
    if lacking > allow * report.answers:
        where = f", first in {mask.first_open}" if mask.first_open else ""
        cut = f" ({report.cut_stops:,} are cut off at {report.max_length:,})" if report.cut_stops else ""
        yield Finding(
            f"Under {name}, the stop token of {_of(lacking, report.answers, 'answers')} carries no loss{where}{cut}. A "
            "model trained so does not learn to stop.",
            fatal=True,
        )
    if mask.bare and report.answers:
        ends = " TRL ends with an error there." if name == "assistant" else ""
        yield Finding(
            f"Under {name}, {_of(mask.bare, report.rows, 'rows')} carry no loss at all, first {mask.first_bare}.{ends}"
        )


def _template(report: Report, template: Template) -> Iterator[Finding]:
    """What the templates do to every row."""
    pad = template.tokenizer.pad_token_id
    if not template.has_blocks:
        yield Finding(
            "The template has no {% generation %} blocks, so assistant is counted from the generation prompt to the "
            "stop token. TRL's assistant_only_loss needs them: it brings a template of its own for some models and "
            "refuses the others."
        )
    if report.doubled:
        yield Finding(f"{_of(report.doubled, report.rows, 'rows')} begin with BOS twice{_first(report, 'doubled')}. "
                      "Take one out of the template.")  # fmt: skip
    elif report.shown and _adds_bos(report.shown[0], template):
        yield Finding("The template writes BOS, and the tokenizer adds another. Tokenise what the template has written "
                      "with add_special_tokens=False, as TRL does (save 0.15 and 0.16).")  # fmt: skip
    if pad in report.stops:
        yield Finding(
            f"The stop token {template.tokenizer.pad_token} is the pad token too. A collator that masks by token id "
            "takes its loss: transformers' DataCollatorForLanguageModeling, which TRL used before 0.16."
        )


def _adds_bos(row: Row, template: Template) -> bool:
    begin = template.tokenizer(row.written.text, verbose=False)["input_ids"][:2]
    return template.bos is not None and begin == [template.bos, template.bos]


def _prompts(report: Report, template: Template) -> Iterator[Finding]:
    """Where generation does not see what training saw."""
    if template.ignores_prompt:
        yield Finding("The template ignores add_generation_prompt: in training an answer has a header before it, in "
                      "generation it has none. Give the template a generation prompt.")  # fmt: skip
    for kind, sentence in _PROMPTS.items():
        if number := report.prompts[kind]:
            shown = _difference(report.shown) if kind == "other" else ""
            yield Finding(f"{_of(number, report.answers, 'answers')} {sentence}{_first(report, kind)}{shown}.")


def _difference(rows: Iterable[Row]) -> str:
    """The first difference of training and generation, from a row at hand."""
    for row in rows:
        for prompt in row.written.prompts:
            if prompt is not None and not row.written.text.startswith(prompt):
                both = zip(f"{prompt}\0", f"{row.written.text}\1", strict=False)
                at = next(place for place, (one, other) in enumerate(both) if one != other)
                training, generation = row.written.text[at : at + _SHOWN], prompt[at : at + _SHOWN]
                return f" (training: {training!r}, generation: {generation!r})"
    return ""


def _messages(report: Report) -> Iterator[Finding]:
    """What the template makes of single messages."""
    for verb, counts in (("leaves out", report.dropped), ("strips or changes", report.changed)):
        for role, number in counts.items():
            of = _of(number, report.roles[role], f"{role} messages")
            yield Finding(f"The template {verb} {of}{_first(report, f'{verb} {role}')}.")
    if report.inner:
        where = _first(report, "inner")
        yield Finding(f"{report.inner:,} messages hold special tokens in their text{where}. Perhaps the data has been "
                      "through a template before.")  # fmt: skip
    if report.printed:
        where = _first(report, "printed")
        yield Finding(f"The template prints {report.printed:,} lists of parts as Python{where}. Give content as text.")


def _lengths(report: Report, judged: Sequence[str]) -> Iterator[Finding]:
    """What rows lose that are longer than the greatest length, and what they lose in packs."""
    at = f"at {report.max_length:,}" if report.max_length else ""
    if report.long:
        lost = ", ".join(f"{report.masks[name].cut_tokens:,} of them with loss under {name}" for name in judged)
        rows = _of(report.long, report.rows, "rows")
        yield Finding(f"Cut {at}, {rows} lose {report.cut_tokens:,} tokens ({lost}) and {report.cut_stops:,} stop "
                      "tokens. Packing with bfd cuts the same.")  # fmt: skip
    for name in judged:
        if number := report.masks[name].cut_bare:
            yield Finding(f"Cut {at}, {_of(number, report.rows, 'rows')} keep no token with loss under {name}.")
    for strategy, packing in (("bfd_split", report.split), ("wrapped", report.wrapped)):
        if packing.cut_answers:
            yield Finding(
                f"Packed {at} with {strategy}, {_of(packing.cut_answers, report.answers, 'answers')} are cut in two or "
                f"from their prompt, and {packing.heads:,} tokens carry no loss because a piece begins with them."
            )


def _of(number: int, total: int, what: str) -> str:
    return f"{number:,} of {total:,} {what}"


def _first(report: Report, what: str) -> str:
    return f", first in {report.first[what]}"
