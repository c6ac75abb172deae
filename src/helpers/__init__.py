"""Claimbook: experiments as notebooks, runs as records, claims as pages computed from records.

Ground floor: params, runs, provenance, models, generate, stats, plots, widgets (and errors, files, rng below them).
Wings, which never import each other: marker, eqprop, actdiff, latentwire.
Upper floor: claims, site, sweeps, bench, cli.
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
