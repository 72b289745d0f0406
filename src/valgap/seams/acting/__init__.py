"""What changes a program that is being re-run: interventions, its length, its seed, and what arms share."""
