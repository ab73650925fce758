"""What the speed figures come from. Each benchmark prints JSON with the machine in it."""
