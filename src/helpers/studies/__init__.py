"""The studies: a package each, with one face (``study.py``). They never import each other, nor claims, nor the site."""
