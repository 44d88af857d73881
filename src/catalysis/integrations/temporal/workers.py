"""Workers: Temporal's own, with a database, resources that its activities share, and a sandbox that lets us in."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from catalysis.database import Database, DatabaseService
from catalysis.errors import ActivityError
from catalysis.integrations.temporal.attempts import Surroundings
from catalysis.integrations.temporal.definition import Definition
from catalysis.integrations.temporal.effects import check_effects

if TYPE_CHECKING:
    from temporalio.client import Client
    from temporalio.worker import Worker


async def connect(address: str | None = None, namespace: str | None = None, **options: Any) -> "Client":
    """A client of Temporal's server that sends and reads Pydantic models.

    What is not given comes from Temporal's own settings, `TEMPORAL_ADDRESS`, `TEMPORAL_NAMESPACE`, `TEMPORAL_API_KEY`,
    `TEMPORAL_TLS…` or its file of profiles; without any it is the namespace "default" on localhost:7233.  Other
    options go to `Client.connect`.

    Raises:
        ActivityError: there is no server there, or it does not let us in.
    """
    from temporalio.client import Client
    from temporalio.contrib.pydantic import pydantic_data_converter
    from temporalio.envconfig import ClientConfig

    given: dict[str, Any] = {"data_converter": pydantic_data_converter, **options}
    loaded = ClientConfig.load_client_connect_config()
    settings: dict[str, Any] = {name: value for name, value in loaded.items() if value is not None}
    there = settings.pop("target_host", "localhost:7233")
    where = address or there
    settings |= {"namespace": namespace} if namespace else {}
    try:
        return await Client.connect(where, **settings | given)
    except RuntimeError as failure:
        raise ActivityError(
            f"There is no Temporal server at {where}, or it does not let us in ({failure}).  Give its address as "
            "host:port, or set TEMPORAL_ADDRESS."
        ) from None


@asynccontextmanager
async def worker(
    client: "Client",
    queue: str,
    *,
    activities: Sequence[Callable[..., Any]] = (),
    workflows: Sequence[type[Any]] = (),
    database: Database | None = None,
    grace: float = 30,
    **options: Any,
) -> AsyncGenerator["Worker"]:
    """A worker of the queue for the length of the block.

    Its activities get sessions of `database` (default: the process's own), and as many run at once as that has
    connections.  At the end no more is begun, what runs has `grace` seconds until it is cancelled, and then what the
    worker made and the database's connections are closed.  Other options go to `temporalio.worker.Worker`.

    Workflows run in Temporal's sandbox, which imports their modules again; the modules of the activities and of
    mapped classes, Catalysis and SQLAlchemy are passed through, so that workflows may import them as they are.

    Raises:
        ActivityError: the client reads no Pydantic models, the table of effects is missing, or a workflow stands in
            the module of a mapped class.
    """
    from temporalio.converter import DefaultPayloadConverter
    from temporalio.worker import Worker

    from catalysis.integrations.temporal.sandbox import Surrounding, runner_for

    if client.data_converter.payload_converter_class is DefaultPayloadConverter:
        raise ActivityError(
            "This client turns Pydantic models into dictionaries.  Make it with `connect(…)`, or with "
            "data_converter=temporalio.contrib.pydantic.pydantic_data_converter."
        )
    used = database or DatabaseService.database()
    surroundings = Surroundings(used)
    if any(_is_idempotent(each) for each in activities):
        await check_effects(used)
    if "workflow_runner" not in options and workflows:
        options["workflow_runner"] = runner_for(activities, workflows)
    if "tuner" not in options:
        settings = used.settings
        options.setdefault("max_concurrent_activities", settings.pool_size + settings.max_overflow)
    async with AsyncExitStack() as closing:
        closing.push_async_callback(used.close)
        closing.push_async_callback(surroundings.resources.close)
        yield await closing.enter_async_context(
            Worker(
                client,
                task_queue=queue,
                activities=activities,
                workflows=workflows,
                interceptors=[*options.pop("interceptors", ()), Surrounding(surroundings)],
                graceful_shutdown_timeout=timedelta(seconds=grace),
                **options,
            )
        )


def _is_idempotent(function: Callable[..., Any]) -> bool:
    definition = getattr(function, "__activity__", None)
    return isinstance(definition, Definition) and definition.idempotent
