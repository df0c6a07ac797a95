"""Densities of the latent."""
