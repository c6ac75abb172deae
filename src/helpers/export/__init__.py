"""Ways out: what other tools and other people read of claims and runs.

``claims`` writes what each claim says as JSON, ``bundle`` a folder of pages, records and ledger, which ``hosts`` put
online and ``checking`` proves again wherever it lies, ``adapter`` a peft folder with a model card,
``inspect_log`` a log of Inspect, ``eee`` the form of Every Eval Ever. ``places`` writes an export whole or not at all,
and replaces only what it made.
"""
