"""How the application says no."""

from typing import Any

from catalysis import DTO


class ProblemDTO(DTO):
    """Why not.  Never SQL, values of others, or what was sent."""

    detail: Any
    constraint: str | None = None


PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": ProblemDTO, "description": "The body cannot be read"},
    401: {"model": ProblemDTO, "description": "Nobody is logged in"},
    403: {"model": ProblemDTO, "description": "The role does not permit it"},
    404: {"model": ProblemDTO, "description": "It is not there, or not for these eyes"},
    409: {"model": ProblemDTO, "description": "It contradicts what is there"},
    422: {"model": ProblemDTO, "description": "What was sent is not understood"},
}
"""The answers that every operation may give, for OpenAPI."""
