"""What is wrong with a video."""

from __future__ import annotations

from av import FFmpegError


class VideoError(ValueError):
    """A video cannot be read to its end, or not be written as is wanted; the message is the reason alone."""


def said(error: FFmpegError) -> str:
    """What FFmpeg says, without its numbers."""
    return (error.strerror or type(error).__name__).strip().rstrip(".")
