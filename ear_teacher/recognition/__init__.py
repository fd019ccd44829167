"""Ear recognition: embeddings of ears, in which the ears of one person are near."""
