"""What Muon does to a matrix's momentum; `shared.update` takes the steps."""

from torch import Tensor

MOMENTUM = 0.95
WEIGHT_DECAY = 0.01
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Keller Jordan's quintic


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """The matrix with its singular values pushed to about 1 (Newton-Schulz; Jordan et al. 2024, "Muon")."""
    a, b, c = _NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x
