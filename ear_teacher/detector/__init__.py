"""Finds ears in photographs and places their landmarks, starting from a trained ear VAE's encoder."""
