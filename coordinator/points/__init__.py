"""Recovery points: heads read back from the vault, and the catalogue."""
