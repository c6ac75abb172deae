"""Run the cells of a study that asks a base model: a record a cell, and the model loaded once, when first asked.

`claimbook new NAME --blank` writes a study in one module that needs no more of `lm` than this. torch is imported when a
model is needed, so that pages and `claimbook status` can import the study without it.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd

from helpers.base.errors import DataError, ModelError
from helpers.base.params import Cell
from helpers.lm.model_facts import facts
from helpers.records import runs
from helpers.records.study import Study
from helpers.stats.pooling import ByQuestion

if TYPE_CHECKING:
    from helpers.lm.models import LoadedModel

C = TypeVar("C", bound=Cell)
SETTINGS = {"revision": None, "device": "auto", "dtype": "auto"}
"""What a cell may say of its model beside its name (`models.load`), and what counts where it does not."""
BATCH = 32
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Session:
    """The base model of some cells, and what can be asked of it."""

    def __init__(self, model: str, **settings: Any) -> None:
        self.model, self.settings = model, settings

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """The ``model`` entry of a record, without loading the model."""
        return facts(self.model, **self.settings)

    @functools.cached_property
    def loaded(self) -> LoadedModel:
        """The model and its tokenizer."""
        from helpers.lm import models

        models.choose_threads()
        loaded = models.load(self.model, **self.settings)
        if loaded.tokenizer.chat_template is None:
            raise ModelError(f"{self.model} has no chat template, so it cannot be asked. Use a chat model.")
        return loaded

    def prompt(self, question: str, system: str | None = None) -> list[int]:
        """Return the token ids of a conversation up to the start of the assistant's answer."""
        turns = [] if system is None else [{"role": "system", "content": system}]
        turns.append({"role": "user", "content": question})
        text = self.loaded.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return self._ids(str(text))

    def choose(
        self, questions: Sequence[str], options: Sequence[Sequence[str]], system: str | None = None
    ) -> pd.DataFrame:
        """Return which of its options the model finds likeliest at the start of its answer, a row a question.

        Compared are the log-probs of the options' first tokens. Columns: those of completions, with the option as
        ``text``, and ``margin``, by how many nats it lies ahead of the next. Raises ``DataError`` for fewer than two
        options, or for two that begin with the same token.
        """
        import torch

        from helpers.lm.packed import logits_at

        if len(questions) != len(options):
            raise DataError(f"There are {len(questions)} questions and {len(options)} lists of options. Give one each.")
        firsts = [self._firsts(some) for some in options]
        rows = []
        for start in range(0, len(questions), BATCH):
            prompts = [self.prompt(question, system) for question in questions[start : start + BATCH]]
            # The position after the prompt is scored, so a dummy token fills its place.
            with torch.inference_mode():
                held, at = [[*prompt, 0] for prompt in prompts], [[len(prompt)] for prompt in prompts]
                logprobs = logits_at(self.loaded.model, held, at).log_softmax(-1)
            for number, scores in enumerate(logprobs, start):
                ranked = sorted(zip(scores[firsts[number]].tolist(), options[number], strict=True), reverse=True)
                rows.append(_address(number) | {"text": ranked[0][1], "margin": ranked[0][0] - ranked[1][0]})
        return pd.DataFrame(rows)

    def sample(
        self,
        questions: Sequence[str],
        *,
        seed: int,
        n: int = 1,
        max_new_tokens: int = 32,
        temperature: float = 1.0,
        system: str | None = None,
    ) -> pd.DataFrame:
        """Draw ``n`` answers to each question; return completions: address, text, tokens, and why each ended."""
        from helpers.lm.generate import generate
        from helpers.lm.models import local_folder
        from helpers.lm.prompts import Prompt, Sampling
        from helpers.lm.tokenizer_files import stop_tokens

        stops = stop_tokens(self.loaded.tokenizer, local_folder(self.model, self.settings.get("revision")))
        prompts = [Prompt(str(at), self.prompt(question, system)) for at, question in enumerate(questions)]
        drawn = generate(
            self.loaded.model, prompts, n=n, sampling=Sampling(max_new_tokens, temperature),
            stop=sorted(stops), seed=seed, names=("session",),
        )  # fmt: skip
        texts = self.loaded.tokenizer.batch_decode([one.tokens for one in drawn])
        return pd.DataFrame(
            _address(int(one.key), one.index) | {"text": text, "tokens": len(one.tokens), "finish": one.finish}
            for one, text in zip(drawn, texts, strict=True)
        )

    def _ids(self, text: str) -> list[int]:
        return self.loaded.tokenizer(text, add_special_tokens=False).input_ids

    def _firsts(self, options: Sequence[str]) -> list[int]:
        firsts = [self._ids(option)[0] if option else None for option in options]
        if len(firsts) < 2 or None in firsts or len(set(firsts)) < len(firsts):
            raise DataError(
                f"The options {list(options)!r} cannot be told apart by their first token. Give at least two that "
                "begin differently, such as letters."
            )
        return [first for first in firsts if first is not None]


def multiple_choice(question: str, choices: Sequence[str]) -> str:
    """Return the text that asks for the letter of one of ``choices``, which are listed behind A, B, C, ..."""
    listed = "\n".join(f"{LETTERS[at]}. {choice}" for at, choice in enumerate(choices))
    return f"Question: {question}\n{listed}\nAnswer with the letter."


def count_by_question(**rates: str) -> ByQuestion:
    """Return what counts successes and trials of rates by question, for `Study.by_question`.

    ``rates`` maps a metric to the column of ``completions`` that says of each answer whether it was a success.
    """

    def counted(record: runs.Record, metric: str) -> dict[Any, tuple[int, int]] | None:
        if metric not in rates:
            return None
        by_question = record.table("completions").groupby("question")[rates[metric]]
        return {question: (int(some.sum()), len(some)) for question, some in by_question}

    return counted


def _address(question: int, index: int = 0) -> dict[str, Any]:
    """Return the columns by which pages and the browser of completions address a text."""
    return {"persona": "assistant", "question": question, "index": index}


def run_cells(
    study: Study,
    cells: Iterable[C],
    run_cell: Callable[[C, runs.Run, Session], pd.DataFrame | None],
    *,
    notebook: str,
    data: Callable[[C], Sequence[Path]] = lambda cell: (),
) -> list[runs.Record]:
    """Run each of ``cells`` that has no complete record yet; return all their records, in the same order.

    ``run_cell(cell, run, session)`` keeps tables by ``run.step``; the completions that it may return tell the record
    how many ended in which way. The parameter ``model`` of a cell names its base model, and the files ``data(cell)``
    are part of its question.
    """
    records, session = [], None
    for cell in cells:
        values = cell.model_dump()
        model, settings = values["model"], {name: values.get(name, usual) for name, usual in SETTINGS.items()}
        if session is None or (session.model, session.settings) != (model, settings):
            session = Session(model, **settings)  # one model in memory at a time
        axes = "-".join(f"{name}-{value}" for name, value in cell.coordinates().items() if name != "model")
        with runs.open_run(
            study, notebook=notebook, params=cell.resolved(), cell=cell.coordinates(), data=data(cell),
            model=session.facts, prefix=f"{model.rsplit('/', 1)[-1]}-{axes}",
        ) as run:  # fmt: skip
            if not run.complete:
                table = run_cell(cell, run, session)
                ended = [] if table is None or "finish" not in table else table["finish"].tolist()
                run.finish(finish_reasons=Counter(map(str, ended)))
            records.append(run.record)
    return records
