"""What a machine can do: its measured limits, and what they mean for each size of model."""
