from collections.abc import Callable
from typing import Any

def prepare(state: type[Any], model: type[Any], unsure: object, /) -> None: ...
def maker(
    node: tuple[Any, ...], states: dict[Any, Any], home: Any, number: int, session_id: Any, options: Any, /
) -> Callable[..., Any]: ...
