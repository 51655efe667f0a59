"""Agent units: their states, restart policy and start limit, and the manager that reconciles them."""
