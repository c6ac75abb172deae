"""Claimbook: experiments as notebooks, runs as records, claims as pages computed from records.

Ground floor: params, runs, provenance, models, generate, stats, plots, widgets (and errors, files, rng below them).
Wings, which never import each other: marker, eqprop, actdiff, latentwire.
Upper floor: claims, site, sweeps, bench, cli.
"""
