"""Placeholder."""


class NoteEvents: ...
