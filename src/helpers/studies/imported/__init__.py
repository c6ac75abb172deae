"""Results that were made elsewhere: the samples of an Inspect log, an lm-eval run or a table, as ordinary records.

1. A reader (`inspect_log`, `lm_eval`, `tabular`) turns a file into a `samples.Log`: what the file says of itself, and
   one row a sample, epoch and score.
2. `importing` declares each log as a cell of ``params/<name>/logs.yaml`` and writes its record.
3. `metrics` derives rates and means from the rows, whenever they are verified; `criteria` compares logs.

Epochs are samples drawn again, never training seeds. Such a record says nothing of a recipe, and cannot be replayed.
"""
