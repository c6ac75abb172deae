"""A cache of what lint derives and judges, keyed by the content it is made from and by all the code that makes it."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

from helpers.audit import judgement
from helpers.base import files
from helpers.base.errors import RecordError
from helpers.claims.case import Case
from helpers.records import provenance, reading, source
from helpers.records.derive import derive
from helpers.records.reading import Record
from helpers.records.study import Study


class Kept:
    """What is in ``outputs/.derived``. The source is read once: make another one when it may have changed."""

    def __init__(self) -> None:
        self._code = functools.cache(_code)
        self._environment = provenance.environment_of_arithmetic()

    def derive(self, record: Record, study: Study) -> dict[str, Any]:
        """Return what `derive` does, as it was kept where the same code has derived it before."""
        inputs = {name: reading.load(ref) for name, ref in record.inputs.items()}
        used = {name: [one.params, one.files, one.metrics] for name, one in inputs.items()}
        made_of = [study.name, study.metrics_version, record.params, record.files, used]
        return self._recalled(lambda: derive(record, study), made_of, derive.__module__, study.metrics.__module__)

    def judge(self, case: Case) -> judgement.Judgement:
        """Return what `judgement.judge` does, as it was kept where the same code has judged it before."""
        made_of = [case.claim.slug, judgement.key_of(case)]
        modules = judgement.modules_of(case.criteria)
        return self._recalled(lambda: judgement.judge(case), made_of, judgement.__name__, *modules)

    def _recalled(self, make: Callable[[], dict[str, Any]], made_of: list[Any], *modules: str) -> dict[str, Any]:
        """Return the result of ``make``, kept by what it is made of and the source of ``modules`` with all imports."""
        code = self._code(*modules)
        if code is None:
            return make()
        path = files.outputs_root() / ".derived" / f"{files.sha256_json([*made_of, code, self._environment])}.json"
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
        made = make()
        files.write_json(path, made)
        return made


def _code(*modules: str) -> dict[str, str] | None:
    try:
        return source.code_closure(*modules, bookkeeping=True)
    except RecordError:  # a study outside helpers, whose source cannot be followed
        return None
