"""Embeddings of ears: where they come from, how they are kept, and what lies near what."""
