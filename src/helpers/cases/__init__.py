"""A claim opened with its records: what pages, lint and exports ask it.

    case = open_case("reports/lr-epochs-band.qmd")
    case.verdict().word, case.confidence().stated, case.fact("source_rate", lr=1e-4, epochs=10, tail="newline")

``claim`` reads the block of a page, ``case`` ties it to its criteria and records (``changed``: what these answered has
changed since), ``facts`` puts their numbers on the page, and ``challenge`` judges it
again in all other ``ways`` to analyse the records (``recalled`` keeps what came out). ``summary`` says what it does not
claim, and ``drafts`` what an unfinished page lacks, ``placeholders`` among it.
"""

from helpers.cases.case import Case, open_case

__all__ = ["Case", "open_case"]
