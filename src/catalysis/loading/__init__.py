"""Relationships are there: managed scopes, and one statement for all peers of a touched instance."""
