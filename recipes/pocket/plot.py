"""The run so far as a picture: `python recipes/pocket/plot.py` writes runs/loss.svg from runs/log.txt."""

import argparse
import math
import re
from collections.abc import Sequence
from pathlib import Path

RUNS = Path(__file__).parent / "runs"
_LINE = re.compile(r"^step +(\d+)  loss ([\d.]+)  mtp ([\d.]+)", re.MULTILINE)
_WIDTH, _HEIGHT, _EDGE = 900, 420, 50
_COLOURS = (("trunk", "#2563eb"), ("MTP block", "#9ca3af"))

Point = tuple[float, float]


def svg(log: str) -> str:
    """Both losses by step, the losses on a logarithmic axis. A run that was resumed from before its end drops back."""
    found = [(int(step), float(trunk), float(draft)) for step, trunk, draft in _LINE.findall(log)]
    if not found:
        raise SystemExit("the log has no step yet")
    last = max(step for step, *_ in found)
    losses = [max(loss, 1e-4) for _, *both in found for loss in both]
    low, high = math.floor(math.log10(min(losses))), math.log10(max(losses))

    def place(step: int, loss: float) -> Point:
        height = (math.log10(max(loss, 1e-4)) - low) / max(high - low, 1e-9)
        return _EDGE + step / last * (_WIDTH - 2 * _EDGE), _HEIGHT - _EDGE - height * (_HEIGHT - 2 * _EDGE)

    parts = [f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>']
    for power in range(low, math.ceil(high) + 1):
        x, y = place(0, 10.0**power)
        if y >= _EDGE:
            parts.append(f'<path d="M{x} {y:.1f}H{_WIDTH - _EDGE}" stroke="#e5e7eb"/>')
            parts.append(f'<text x="{x - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    for column, (name, colour) in enumerate(_COLOURS):
        line = _path([place(row[0], row[1 + column]) for row in found])
        parts.append(f'<path d="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(
            f'<text x="{_WIDTH - _EDGE}" y="{20 + 16 * column}" text-anchor="end" fill="{colour}">{name}</text>'
        )
    parts.append(f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 14}" text-anchor="middle">step (of {last:,})</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif"'
    return f'{head} font-size="12">{"".join(parts)}</svg>\n'


def _path(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=RUNS, help="of train.py")
    given = parser.parse_args()
    (given.run / "loss.svg").write_text(svg((given.run / "log.txt").read_text()))
    print(f"wrote {given.run / 'loss.svg'}")


if __name__ == "__main__":
    main()
