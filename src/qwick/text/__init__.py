"""Text to token ids and back: pure, push-driven state machines that know no engine."""
