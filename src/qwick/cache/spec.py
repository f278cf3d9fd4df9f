"""What the cache weighs, and how many pages and slots fit a context or a budget."""

from dataclasses import dataclass

from qwick.errors import CapacityError
from qwick.ops.contract import MAX_DRAFT_LEN, CacheShape

_F32_BYTES = 4
_KV_GROUP_BYTES = {"f32": 128, "f16": 64, "bf16": 64, "q8_0": 34}  # of 32 values


@dataclass(frozen=True, slots=True)
class CacheSpec:
    """Sizes in bytes of one page and one slot over all layers of `shape`."""

    shape: CacheShape

    @property
    def token_bytes(self) -> int:
        """KV bytes of one token."""
        heads = self.shape.attention
        values = self.shape.num_attention_layers * 2 * heads.num_kv * heads.head_dim
        return values * _KV_GROUP_BYTES[self.shape.kv_format] // 32

    @property
    def page_bytes(self) -> int:
        return self.token_bytes * self.shape.page_len

    @property
    def state_bytes(self) -> int:
        """Recurrent and convolution state of one sequence: what a snapshot costs."""
        delta = self.shape.delta
        recurrent = delta.num_v * delta.k_dim * delta.v_dim
        conv = (self.shape.conv_kernel - 1) * delta.channels
        return self.shape.num_delta_layers * (recurrent + conv) * _F32_BYTES

    @property
    def state_pages(self) -> int:
        """Pages whose memory holds one state: a snapshot. CapacityError for a network without pages."""
        if self.page_bytes == 0 < self.state_bytes:
            raise CapacityError("a network without attention layers has no pages to keep a state in")
        return -(-self.state_bytes // self.page_bytes) if self.state_bytes else 0

    @property
    def slot_bytes(self) -> int:
        """A slot: the state and the pending lane of a draft verification."""
        delta = self.shape.delta
        lane = MAX_DRAFT_LEN * (delta.channels + 2 * delta.num_v)
        return self.state_bytes + self.shape.num_delta_layers * lane * _F32_BYTES

    @property
    def total_bytes(self) -> int:
        return self.page_bytes * self.shape.num_pages + self.slot_bytes * self.shape.num_slots

    def pages_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.shape.page_len)


def check_context(context_len: int, longest: int) -> None:
    """Raises CapacityError when a context is longer than the model was made for."""
    if not 1 <= context_len <= longest:
        remedy = "; --yarn may make more possible" if context_len > longest else ""
        raise CapacityError(
            f"a context of {context_len:,} tokens was asked for; this model takes 1 to {longest:,}{remedy}"
        )
