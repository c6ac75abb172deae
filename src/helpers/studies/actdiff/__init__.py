"""Activation differences: the traces of a fine-tune, read from base/tuned pairs on unrelated text."""
