"""Jobs: asked for, published, leased, reported, judged."""
