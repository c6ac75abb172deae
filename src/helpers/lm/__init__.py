"""Language models: load them (``models``), train on ``packed`` and ``stacked`` rows, ``generate`` with two engines."""
