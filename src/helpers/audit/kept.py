"""A cache of what lint derives and judges, keyed by the content it is made from and by all the code that makes it."""

from __future__ import annotations

from typing import Any

from helpers.audit import judgement
from helpers.cases.case import Case
from helpers.cases.recalled import Recalled
from helpers.records import reading
from helpers.records.derive import derive
from helpers.records.reading import Record
from helpers.records.study import Study


class Kept(Recalled):
    """What of records and claims is kept."""

    def derive(self, record: Record, study: Study) -> dict[str, Any]:
        """Return what `derive` does, as it was kept where the same code has derived it before."""
        inputs = {name: reading.load(ref) for name, ref in record.inputs.items()}
        used = {name: [one.params, one.files, one.metrics] for name, one in inputs.items()}
        made_of = [study.name, study.metrics_version, record.params, record.files, used]
        return self.recall(lambda: derive(record, study), made_of, derive.__module__, study.metrics.__module__)

    def judge(self, case: Case) -> judgement.Judgement:
        """Return what `judgement.judge` does, as it was kept where the same code has judged it before.

        The ways in which the claim was challenged are those that its page shows.
        """
        made_of = [case.claim.slug, judgement.key_of(case)]
        modules = judgement.modules_of(case.criteria)
        judged = self.recall(lambda: judgement.judge(case), made_of, judgement.__name__, *modules)
        return judged | {"challenge": judgement.challenged(case)}
