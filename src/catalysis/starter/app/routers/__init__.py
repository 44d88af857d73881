"""One module a resource: paths, permissions and status codes.  What is done is said in `services`."""

from fastapi import APIRouter

from catalysis.starter.app.dtos.problems import PROBLEMS
from catalysis.starter.app.routers import auth, categories, groups, maintenance, roles, tasks, users

api = APIRouter(responses=PROBLEMS)
for module in (auth, tasks, categories, users, roles, groups, maintenance):
    api.include_router(module.router)
