"""Judgement: how criteria that were registered before the runs are judged over run records.

``criteria`` reads the outcomes of each question (``marked`` keeps their lines, ``computed`` the metrics that functions
compute). ``evidence`` pools the records of the ``declared`` runs into cells. ``conditions`` are judged over these in
the ``logic`` of three values. ``verdict`` and ``confidence`` sum up.
`cases` opens the claim of a page with its records.
"""
