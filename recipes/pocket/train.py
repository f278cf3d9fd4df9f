"""Train the embedded model: `python recipes/pocket/train.py`. Seeded; resumes where it was stopped, however that was.

Two processes of one thread each work on shared weights: each takes half of a step's rows and updates half of the
weights. Writes checkpoints and a log under recipes/pocket/runs, at the end the folder src/qwick/pocket/model.
"""

import argparse
import os
import sys
from pathlib import Path

# Without the first two the C library gives freed activations back to the kernel and every step faults them in again.
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "8000000000", "OMP_NUM_THREADS": "1"}
ROOT = Path(__file__).resolve().parents[2]

if __name__ == "__main__":
    sys.path[:0] = [str(ROOT)]  # run as a script: make `recipes.pocket` importable
    if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()):
        os.environ.update(ENVIRONMENT)
        os.execv(sys.executable, [sys.executable, *sys.argv])

from recipes.pocket.plan import Plan
from recipes.pocket.training import restored, train, write

RUNS = Path(__file__).parent / "runs"
MODEL_FOLDER = ROOT / "src/qwick/pocket/model"


def main() -> None:
    defaults = Plan()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--until", type=int, help="stop at this step, to be resumed")
    parser.add_argument("--check-every", type=int, default=defaults.check_every)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--write", action="store_true", help="only write the folder, from the checkpoint as it is")
    parser.add_argument("--no-compile", action="store_true", help="run torch's ops one by one: slower by a fifth")
    parser.add_argument("--out", type=Path, default=MODEL_FOLDER, help="the model folder to write")
    parser.add_argument("--run", type=Path, default=RUNS, help="log and checkpoint; resumed if there is one")
    given = parser.parse_args()
    plan = Plan(steps=given.steps, check_every=given.check_every, seed=given.seed)
    if given.write:
        write(restored(plan, given.run), given.out)
        return
    train(plan, given.out, given.run, until=given.until or given.steps, compiled=not given.no_compile)


if __name__ == "__main__":
    main()
