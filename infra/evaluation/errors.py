"""What a person can act upon."""


class EvaluationError(Exception):
    """The directory is not what the evaluation needs; its text is one sentence naming the file."""
