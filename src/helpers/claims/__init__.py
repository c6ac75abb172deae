"""Judgement: how criteria that were registered before the runs are judged over run records.

``claim`` reads the block of a page and ``criteria`` the outcomes of each question (``marked`` keeps their lines,
``computed`` the metrics that functions compute). ``evidence`` pools the records of the ``declared`` runs into cells.
``conditions`` are judged over these in the ``logic`` of three values. ``verdict`` and ``confidence`` sum up, and
``wording`` says numbers in words. `cases` opens the claim of a page with its records.
"""
