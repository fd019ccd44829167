"""Embeddings of ears: sources, tables, nearest neighbours and clusters."""
