"""Lists come in pages, of at most `MAX_SIZE` items."""

from pydantic import Field

from catalysis import DTO

MAX_SIZE = 100


class Paging(DTO):
    """Which page of a list."""

    page: int = Field(default=1, ge=1, le=1_000_000)
    size: int = Field(default=20, ge=1, le=MAX_SIZE)
