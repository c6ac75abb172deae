"""The site: building blocks of pages, their rendering with or without Quarto, and the check that follows.

``pages`` and ``blocks`` are what the cells of a page call. ``render`` turns ``reports/*.qmd`` into ``_site/``, with
Quarto or, where Quarto is not installed, with ``fallback`` (``markdown``, ``frame``); ``finish`` adds what both need
afterwards (``completions``, ``notebooks``, ``check``).
"""
