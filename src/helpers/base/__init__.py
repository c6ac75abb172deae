"""What everything rests on: errors, files, seeded randomness, parameters, statistics, text as HTML. No torch here."""
