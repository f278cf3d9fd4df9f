"""The instruction sets that tests of whole programs run on."""

from qwick.ops.native import describe_machine

# What this machine can run and has kernels of its own: the others would repeat the one below them. Plain to best.
ISAS = tuple(isa for isa in describe_machine().possible_isas if isa in describe_machine(isa).kernel_choice.values())
