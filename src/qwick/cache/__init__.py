"""The two kinds of memory of a hybrid network: KV pages and recurrent-state slots."""
