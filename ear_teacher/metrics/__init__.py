"""What a trained ear VAE is measured by, and what it is compared with."""
