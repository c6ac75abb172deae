"""What everything rests on: errors, files, seeded randomness, parameters, YAML. No torch here."""
