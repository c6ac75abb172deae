"""The shared-text control: what is read where each model reads its own text, against both reading one text."""
