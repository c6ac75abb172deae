"""Everything that writes or checks the ledger: proof that records and pages say what was registered, run and measured.

``register`` enters what a claim will be judged by, ``publishing`` copies, derives again and withdraws records, and
``replay`` runs them again. ``verify`` checks the records and ``entries`` the
ledger, with ``branches`` for its own past and ``judgement`` for what the records are judged to say.
"""
