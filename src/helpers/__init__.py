"""Claimbook: experiments as notebooks, runs as records, claims as pages computed from records.

Rooms, each importing only rooms below it:

    cli
    bench, export
    site, sweeps
    audit
    cases
    studies, claims
    lm, show
    records
    stats, system
    base

``base``, ``records`` and ``claims`` are the core. `CONTRIBUTING.md` says what each room is for.
"""

from __future__ import annotations

import os
from pathlib import Path

try:
    Path.home()
except RuntimeError:
    # A bare user id in a container. Libraries (altair, Jupyter) end at their import where there is no home; this is
    # the one that Debian gives to users without.
    os.environ["HOME"] = "/nonexistent"
