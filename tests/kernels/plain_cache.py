"""A small cache shape for tests of the program itself (no torch here: these tests also run under sanitizers)."""

from qwick.ops.contract import AttentionHeads, CacheShape, DeltaHeads

ATTENTION = AttentionHeads(num_q=4, num_kv=2, head_dim=32, rotary_dim=16)
DELTA = DeltaHeads(num_k=2, num_v=4, k_dim=32, v_dim=48)
CACHE = CacheShape(1, 1, ATTENTION, DELTA, 4, num_pages=6, num_slots=4)
