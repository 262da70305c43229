"""Revisions of the database, run when a coordinator starts."""
