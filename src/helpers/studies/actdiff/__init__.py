"""Wing ``actdiff``: what a fine-tune leaves in the activations, read from base/tuned pairs on unrelated text."""
