"""Figures from the store alone; nothing here trains."""
