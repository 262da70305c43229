"""Who may ask: operators by token, hosts by the proof on each request, joining hosts by a credentials file."""
