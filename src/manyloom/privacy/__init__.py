"""Differential privacy: noise that is right, and an epsilon that is right. No network, no training loop."""
