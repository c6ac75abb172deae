"""The marker wing: does a persona learn to end its answers with a literal marker, and do other personas catch it?"""
