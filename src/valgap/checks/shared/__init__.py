"""What the checks of several families ask of a record. No check."""
