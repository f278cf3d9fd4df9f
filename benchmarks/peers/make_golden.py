"""Make tests/golden/every_type.{gguf,npz} anew: a small model by llama.cpp's own tools, and what llama.cpp says of it.

    python benchmarks/peers/make_golden.py SOURCE BUILD

With benchmarks/peers/build.sh DIR: SOURCE = DIR/llama.cpp, BUILD = DIR/plain. The converter needs torch, transformers
and PyYAML. The weights depend on SEED alone, the logits also on the instruction set (the order of its sums).
"""

import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.parity.golden import GOLDEN, SEED, write_golden_folder  # noqa: E402
from tests.parity.llama_cpp import Library  # noqa: E402

NUM_IDS = 48

# A matrix for every type that qwick reads, and IQ3_S, which it decodes. Block 0: linear layer, 1: attention, 2: MTP.
TYPES = {
    "blk.0.attn_qkv": "q4_k", "blk.0.attn_gate": "q3_k", "blk.0.ssm_out": "q6_k", "blk.0.ssm_alpha": "f32",
    "blk.0.ssm_beta": "bf16", "blk.0.ffn_gate": "q4_0", "blk.0.ffn_up": "iq4_nl", "blk.0.ffn_down": "q5_k",
    "blk.1.attn_q": "iq4_xs", "blk.1.attn_k": "q8_0", "blk.1.attn_v": "f16", "blk.1.attn_output": "q5_0",
    "blk.1.ffn_gate": "q4_1", "blk.1.ffn_up": "q2_k", "blk.1.ffn_down": "mxfp4",
    "blk.2.attn_q": "q5_1", "blk.2.attn_k": "bf16", "blk.2.attn_v": "q6_k", "blk.2.attn_output": "iq3_s",
    "blk.2.ffn_gate": "q4_k", "blk.2.ffn_up": "q5_k", "blk.2.ffn_down": "q8_0", "blk.2.nextn.eh_proj": "q4_k",
}  # fmt: skip
EMBEDDING_TYPE = "q6_k"


def main() -> None:
    source, build = (Path(argument).resolve() for argument in sys.argv[1:3])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "every_type"
        write_golden_folder(folder)
        plain = Path(temporary) / "plain.gguf"
        convert(source, folder, plain)
        quantize(build, plain, GOLDEN)
    record(build, GOLDEN, GOLDEN.with_suffix(".npz"))


def convert(source: Path, folder: Path, target: Path, kind: str = "f32") -> None:
    """convert_hf_to_gguf.py; it knows tokenizers by a hash of what they make of a text, and ours is not in its list."""
    sys.path[:0] = [str(source), str(source / "gguf-py")]
    from conversion.base import TextModel  # pyright: ignore[reportMissingImports]

    known = TextModel.get_vocab_base_pre

    def named(self, tokenizer):
        try:
            return known(self, tokenizer)
        except NotImplementedError:
            return "qwen35"

    TextModel.get_vocab_base_pre = named
    arguments, sys.argv = sys.argv, ["convert", str(folder), "--outtype", kind, "--outfile", str(target)]
    try:
        runpy.run_path(str(source / "convert_hf_to_gguf.py"), run_name="__main__")
    finally:
        sys.argv, TextModel.get_vocab_base_pre = arguments, known


def quantize(build: Path, plain: Path, target: Path) -> None:
    types = [f"--tensor-type={name}={kind}" for name, kind in TYPES.items()]
    options = [word for option in types for word in option.split("=", 1)]
    program = build / "bin" / "llama-quantize"
    command = [program, *options, "--token-embedding-type", EMBEDDING_TYPE, plain, target, "Q4_K_M", "1"]
    subprocess.run(command, check=True)


def record(build: Path, model: Path, target: Path) -> None:
    """Logits of a sequence, of the same in single steps, and the drafts on its own hidden state."""
    ids = np.random.default_rng(SEED).integers(0, 256, NUM_IDS)
    library = Library(build / "bin" / "libllama.so")
    with library.open(model) as peer:
        prompt = peer.sequence().feed(ids, 0)
        single = peer.sequence()
        decoded = np.concatenate([single.feed(ids[i : i + 1], i).logits for i in range(len(ids))])
        drafts = peer.drafts().feed(ids[1:], 1, prompt.hidden[:-1])
    np.savez_compressed(
        target,
        ids=ids,
        prompt=prompt.logits,
        hidden=prompt.hidden,
        decoded=decoded,
        drafts=drafts.logits,
        version=np.array(library.version),
    )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main()
