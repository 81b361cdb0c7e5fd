"""The loop, its schedules, and what a run leaves on disk. Knows `Algorithm`, never one by name."""
