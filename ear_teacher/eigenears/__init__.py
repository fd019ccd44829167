"""Eigenears: principal components of the latents, decoded as ears, and their composition."""
