"""Eigenears: the directions along which ears differ most in the latents, drawn, and what they are made of."""
