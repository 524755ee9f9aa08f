"""The noise process: noise table, schedules, prediction types, guidance, noise sources."""
