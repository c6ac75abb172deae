"""Any command as a record: what was run, its environment and code state, the end of its output, and files it left.

1. `running` runs the command, passes its signals and its output on, and keeps the end of the output.
2. `kept` finds the files that are kept, and reads the metrics that the command wrote.
3. `recording` declares the run in ``params/<name>/commands.yaml`` and writes its record.

Nothing can derive the metrics again or run the command again. They are ``measured``, and cap the confidence at LOW.
"""
