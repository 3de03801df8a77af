"""From samples to adapter weights."""
