"""What needs both studies and claims: proof that records and pages say what was registered, run and measured."""
