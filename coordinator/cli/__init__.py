"""The commands of `stateward`."""
