"""Read a run of lm-evaluation-harness: a folder with ``results_*.json`` and one ``samples_<task>_*.jsonl`` a task.

It writes one line a document and filter. A document that is judged under two filters is one sample with two scores, so
each filter gives scores of its own (``exact_match.strict_match``) and a sample never counts twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

from helpers.base.errors import DataError, nearest
from helpers.base.files import read_text, shown
from helpers.lm.lines import read_jsonl
from helpers.records.run_record import NOT_RECORDED
from helpers.studies.imported.samples import LARGEST, Log, Row, Stated, number, plain_name

PREFIX = "samples_"
SEEDS = ("random_seed", "numpy_seed", "torch_seed", "fewshot_seed")


def tasks(folder: Path) -> dict[str, Path]:
    """Return the file of samples of each task in the newest run below ``folder``."""
    stamp = _stamp(_results(folder))
    ends = f"_{stamp}.jsonl"
    found = {
        path.name.removeprefix(PREFIX).removesuffix(ends): path
        for path in sorted(folder.rglob(f"{PREFIX}*{ends}"))
    }  # fmt: skip
    if not found:
        raise DataError(f"{folder.name} has results and no samples. Run lm-eval again with --log_samples.")
    return found


def read(path: Path, cluster: str | None) -> Log:
    """Return what one file of samples and the results beside it say; ``cluster`` is a key of the documents."""
    results = json_of(path.parent / f"results_{_stamp(path)}.json")
    task = path.name.removeprefix(PREFIX).removesuffix(f"_{_stamp(path)}.jsonl")
    config, own, figures = (_mapping(results, *keys) for keys in (("config",), ("configs", task), ("results", task)))
    about = {
        "tool": "lm-eval", "tool_version": results.get("lm_eval_version", NOT_RECORDED),
        "created": results.get("date", NOT_RECORDED), "status": "success",
        "seed": {name: config[name] for name in SEEDS if name in config} or NOT_RECORDED,
        "generation": {"gen_kwargs": config.get("gen_kwargs"), "of_task": own.get("generation_kwargs")},
        "task_version": _mapping(results, "versions").get(task, NOT_RECORDED),
        "fewshot": _mapping(results, "n-shot").get(task, NOT_RECORDED),
        "transformers_version": results.get("transformers_version", NOT_RECORDED), "limit": config.get("limit"),
    }  # fmt: skip
    filters = _filters(path)
    stated = list(_stated(figures, filters))
    model = next((name for name in (results.get("model_name"), config.get("model")) if _is_name(name)), NOT_RECORDED)
    return Log(model, task, about, _rows(path, filters, cluster), stated)


def _is_name(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and bool(value)


def _mapping(results: dict[str, Any], *keys: str) -> dict[str, Any]:
    """Return the mapping at ``keys``, empty where there is none; ``DataError`` for anything else there."""
    for key in keys:
        found = results.get(key) or {}
        if not isinstance(found, dict):
            raise DataError(f"The results of lm-eval have {key!r} as {shown(found)}. Import a folder that it wrote.")
        results = found
    return results


def json_of(path: Path) -> dict[str, Any]:
    """Return the mapping in a JSON file; ``DataError`` where it is none."""
    if not path.is_file():
        raise DataError(f"{path.name} is not beside its samples. Import the whole folder that lm-eval wrote.")
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path.name} is no JSON ({error}). Check that it was written to its end.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path.name} is no file of results. Import a folder that lm-eval wrote.")
    return content


def _results(folder: Path) -> Path:
    found = sorted(folder.rglob("results_*.json"), key=lambda path: path.name)
    if not found:
        raise DataError(f"{folder.name} holds no results_*.json. Import a folder that lm-eval wrote.")
    return found[-1]


def _stamp(path: Path) -> str:
    """Return the moment in the name of a file, which ties samples to their results."""
    return path.stem.rpartition("_")[2]


def _filters(path: Path) -> list[str]:
    return list(dict.fromkeys(str(line.get("filter", "none")) for _, line in _lines(path)))


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number_, line in read_jsonl(path):
        if not isinstance(line, dict) or "doc_id" not in line:
            raise DataError(f"{path.name}:{number_} is no sample of lm-eval, which has a doc_id. Check the file.")
        yield number_, line


def _rows(path: Path, filters: list[str], cluster: str | None) -> Iterator[Row]:
    for at, line in _lines(path):
        where, shared = f"{path.name}:{at}", str(line["doc_id"])
        if cluster is not None:
            document = line.get("doc")
            if not isinstance(document, dict):
                raise DataError(
                    f"{where}: its document is no mapping, so that it has no {cluster!r}. Correct --cluster."
                )
            if cluster not in document:
                raise DataError(f"{where}: the document has no {cluster!r}{nearest(cluster, document)}")
            shared = str(document[cluster])
        for metric in _metrics(line, where):
            if isinstance(line.get(metric), list | dict):
                continue  # sums of a corpus (word_perplexity), which are no score of a sample
            value = number(line.get(metric), f"{metric} of {where}")
            state = "unscored" if value is None else "scored"
            name = _name(metric, str(line.get("filter", "none")), filters)
            yield Row(str(line["doc_id"]), 1, name, value, state, shared)


def _metrics(line: dict[str, Any], where: str) -> list[str]:
    names = line.get("metrics") or []
    if not isinstance(names, list) or not all(map(_is_name, names)):
        raise DataError(f"{where} has metrics {shown(names)}, and they are a list of names. Check the file.")
    return names


def _name(metric: str, filter_: str, filters: list[str]) -> str:
    return plain_name(metric if len(filters) == 1 else f"{metric}.{filter_}")


def _stated(figures: dict[str, Any], filters: list[str]) -> Iterator[Stated]:
    for name, value in figures.items():
        metric, _, filter_ = name.partition(",")
        is_figure = isinstance(value, int | float) and abs(value) <= LARGEST  # NaN says nothing, and is not
        if filter_ in filters and not metric.endswith("_stderr") and is_figure:
            yield Stated((_name(metric, filter_, filters),), "mean", name, float(value))
