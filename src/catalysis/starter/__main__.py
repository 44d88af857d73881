"""`python -m catalysis.starter` starts the starter's own server."""

import typer

from catalysis.starter.app.serve import serve

typer.run(serve)
