"""Frames of a video as pictures."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from earface.core.errors import InputError
from earface.core.limits import MAX_PIXELS
from earface.data.images import write_image

MOST_FRAMES = 1000  # that are taken, of a video however long


def write_frames(video: Path, folder: Path, every: int) -> list[Path]:
    """Every n-th frame of a video, from the first on and MOST_FRAMES at most, as a PNG named by its number.

    Raises InputError for what cannot be read as a video.
    """
    if not video.is_file():
        raise InputError(f"{video}: no such file")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # quiet: what is wrong is said here, in one line
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    capture = cv2.VideoCapture(str(video))
    try:
        return _written(capture, video, folder, every)
    except cv2.error as error:
        raise InputError(f"{video}: cannot be read as a video ({error.err})") from None
    finally:
        capture.release()


def _written(capture: cv2.VideoCapture, video: Path, folder: Path, every: int) -> list[Path]:
    width, height = (capture.get(name) for name in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{video}: frames of {width:.0f}x{height:.0f} are more than the limit of {MAX_PIXELS:,} pixels"
        )
    frames: list[Path] = []
    number = 0
    while capture.isOpened() and len(frames) < MOST_FRAMES and capture.grab():
        if number % every == 0:
            there, frame = capture.retrieve()
            if there:
                frames.append(folder / f"{video.stem}_{number:06d}.png")
                write_image(frames[-1], np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8))
        number += 1
    if not frames:
        raise InputError(f"{video}: cannot be read as a video: it is damaged, or OpenCV lacks its codec")
    return frames
