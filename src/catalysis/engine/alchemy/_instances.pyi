from collections.abc import Callable
from typing import Any

absent: object
unsure: object

class Maker:
    def __call__(self, *key: Any) -> Any: ...
    make: Callable[..., Any]

def prepare(state: type[Any], model: type[Any], /) -> None: ...
def maker(
    node: tuple[Any, ...], states: dict[Any, Any], home: Any, number: int, session_id: Any, options: Any, /
) -> Maker: ...
