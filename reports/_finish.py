"""Quarto runs this after rendering (see _quarto.yml): index, notebooks, completions and the check of the site."""

from helpers.site.finish import after_quarto

if __name__ == "__main__":
    raise SystemExit(after_quarto())
