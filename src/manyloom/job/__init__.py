"""Job, TOML <-> job, plan, run loop, events, checkpoint."""
