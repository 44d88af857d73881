"""The backend: routers call services, services work on models, DTOs go in and out."""
