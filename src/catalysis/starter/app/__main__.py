"""`python -m app` starts the server."""

import typer

from catalysis.starter.app.serve import serve

typer.run(serve)
