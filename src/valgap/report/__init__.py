"""Shows a Diagnosis or a RunRecord: terminal, JSON, HTML. Computes nothing."""
