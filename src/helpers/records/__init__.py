"""Run records: what one holds (``run_record``), how it is made, read, proved and published.

``study`` says what a study is and ``questions`` what a record's id is a hash of. ``runs`` opens a run, whose ``steps``
leave tables; ``derive`` turns tables into metrics. ``reading`` finds and reads records, ``publishing`` copies them to
where git tracks them, and ``ledger`` keeps the chain of what was registered and published. ``provenance`` says where a
result comes from; it is never part of the id.
"""
