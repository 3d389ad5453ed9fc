"""Decisions, pure: no clock, no chance, no file and no socket in here."""
