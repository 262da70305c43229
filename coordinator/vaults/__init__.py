"""Vaults: made step by step, opened with the janitor's credentials."""
