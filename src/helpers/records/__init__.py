"""Run records: what one holds (``run_record``), and how it is made and read.

``study`` says what a study is, and ``questions`` what a record's id is a hash of. ``runs`` opens a run, whose ``steps``
store tables; ``derive`` turns tables into metrics. ``reading`` finds and reads records. ``ledger`` keeps the chain of
what was registered and published. Where a result comes from is recorded by `system`, and is never part of the id.
"""
