"""Managed scopes, batched loading, load() and what is computed of relationships."""
