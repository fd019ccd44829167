"""The documented commands `python -m data.prepare_ears` and so on, and the place of a user's files: data/preprocessed.

What they run is in `earface`; nothing imports from here, since `data` is a name that anyone's project may have.
"""
