"""How long and how fast to train."""

from dataclasses import dataclass

WORKERS = 2  # processes; the rows of a step are divided among them


@dataclass(frozen=True)
class Plan:
    """`rows` of `row_len` tokens a step and worker."""

    steps: int = 2200
    rows: int = 8
    row_len: int = 512
    warmup_steps: int = 60
    matrix_lr: float = 4e-3  # Muon
    vector_lr: float = 3e-3  # Adam: embedding, norms, convolution taps, decay
    descent_share: float = 0.35  # of the steps, at the end
    clip_norm: float = 1.0
    average_decay: float = 0.995  # of the exponential average that is checked and saved
    mtp_every: int = 4  # the MTP block is trained at every so many steps
    mtp_weight: float = 0.5
    check_every: int = 200
    save_every: int = 20
    seed: int = 0

    def lr_share(self, step: int) -> float:
        """Linear warm-up, constant, linearly down: a run can be made longer until the descent begins."""
        left = (self.steps - step) / max(1, round(self.steps * self.descent_share))
        return min(1.0, (step + 1) / self.warmup_steps, left)
