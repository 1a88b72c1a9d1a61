"""The decisions: budgets, queue, workflows, leases; a sans-I/O core and a thin shell."""
