"""What a reader sees in notebooks and pages: the chart theme, charts, widgets, and the numbers of a notebook."""

import sys

# Altair and nbformat import jsonschema, which parses a grammar of IRIs for a second of CPU time, to check a format that
# no schema of theirs names. None is what Python documents for a module not to be imported.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
