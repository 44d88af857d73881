"""From models to revisions and back, on both databases."""

from alembic.config import Config

from catalysis.database import Database
from catalysis.migrations import check, downgrade, revise, upgrade
from tests.migrations.conftest import set_models
from tests.migrations.models import METADATA


async def test_the_models_are_what_their_revision_makes(database: Database, config: Config) -> None:
    set_models(config, METADATA)
    path = await revise(database, "first tables", config=config)
    print(path.read_text())
    steps = await upgrade(database, config=config)
    assert [step.message for step in steps] == ["first tables"]
    assert await check(database, config=config) == []
    assert await revise(database, "nothing", config=config) is None
    await downgrade(database, "base", config=config)
    await upgrade(database, config=config)
    assert await check(database, config=config) == []
