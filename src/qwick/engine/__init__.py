"""Many sequences, one network: step() = plan -> build -> forward -> sample -> commit. Token ids only, no text."""
