"""Files with weights, read with suspicion; knows no model."""
