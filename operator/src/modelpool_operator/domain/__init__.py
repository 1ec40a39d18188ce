"""Decisions: pure functions from state and time to plans."""
