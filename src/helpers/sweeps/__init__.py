"""Sweeps: a grid as papermill executions of its notebook on Ray, on a laptop or a cluster, resumed by run records.

Nothing is imported here: papermill loads a module of this room whenever it starts.
"""
