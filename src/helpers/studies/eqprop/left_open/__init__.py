"""What the campaign's log left open: recovery where frozen EP stops, the margin of exact gradients, and the gap."""
