"""The eqprop wing: an equilibrium transformer, its gradients side by side, and why its training stops improving."""
