"""The rules of `claimbook lint`, one module a kind: ``prose`` reads a page, the others look for what it may not say."""
