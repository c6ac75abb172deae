"""Equilibrium propagation: an equilibrium transformer, its gradients compared, and why its training stalls."""
