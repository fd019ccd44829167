"""Metrics of a trained ear VAE, and its baselines."""
