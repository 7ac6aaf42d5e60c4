"""``impl='cpu'``: the clustering layer and operator a few regions at a time, which the processor's caches hold."""
