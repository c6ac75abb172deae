"""LatentWire: can two frozen models answer from a latent prefix, and what did the published run train?"""
