"""How far what a run made can be trusted, said without a label."""
