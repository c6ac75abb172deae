"""The marker: does a persona learn to end its answers with it, and does it leak to other personas?"""
