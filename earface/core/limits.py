"""What a file of somebody else may ask for before it is refused: sizes in bytes, unpacked where it is packed."""

from __future__ import annotations

MAX_JSON_BYTES = 1024**3
MAX_CSV_BYTES = 1024**3
MAX_YAML_BYTES = 1024**2
MAX_PTS_BYTES = 1024**2
MAX_NPZ_BYTES = 4 * 1024**3  # of pictures; an .npy holds more, since it is mapped rather than read
MAX_POINTS_BYTES = 2 * 1024**3  # of landmarks
MAX_EMBEDDINGS_BYTES = 16 * 1024**3  # four million faces with long paths, a million ears of 1024 latents thrice
MAX_PICTURE_BYTES = 1024**3  # holds MAX_PIXELS without compression
MAX_PIXELS = 250_000_000  # a 200-megapixel phone; 750 MB decoded
MAX_SIDE = 1_000_000  # pixels, as a file states a picture's
MAX_POINTS = 1000  # landmarks of an ear
MAX_EMPTY_ROWS = 10_000  # that take no bytes in a file, and some in memory
MAX_TEXT = 200  # characters of a contract or a collection
MAX_MESSAGE = 2000  # characters of what is said about a file
