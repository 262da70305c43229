"""Commands of `stateward-worker`."""
