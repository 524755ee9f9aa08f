"""text -> weighted chunks of token ids, without torch."""
