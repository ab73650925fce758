"""Why a file cannot be read or written, in words rather than numbers."""

_IN_WORDS: dict[type[Exception], str] = {
    FileNotFoundError: "it is not there",
    PermissionError: "it may not be read or written by you",
    IsADirectoryError: "it is a folder and no file",
    NotADirectoryError: "a part of its path is a file and no folder",
}


def why(error: Exception) -> str:
    """Of an error that was raised."""
    for kind, words in _IN_WORDS.items():
        if isinstance(error, kind):
            return words
    return (isinstance(error, OSError) and error.strerror) or str(error)


def why_named(text: str) -> str:
    """Of one that is only told of, as "NotADirectoryError: …"."""
    return next((words for kind, words in _IN_WORDS.items() if kind.__name__ in text), text)
