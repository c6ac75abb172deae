"""Ways out: what other tools and other people read of claims and runs.

``claims`` writes what each claim says as JSON. ``places`` writes an export whole or not at all, and replaces only what
it made.
"""
