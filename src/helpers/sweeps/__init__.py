"""Sweeps: a grid as papermill executions of its notebook on Ray, on a laptop or a cluster, resumed by run records."""

from __future__ import annotations

from helpers.sweeps.driver import Options, Outcome, sweep

__all__ = ["Options", "Outcome", "sweep"]
