"""logits -> loss -> gradient -> new state, lifted to chunks and populations."""
