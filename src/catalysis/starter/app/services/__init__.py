"""What the application does: functions over a session.  They know models and DTOs, and nothing of HTTP.

A service that writes commits, once, as its last act: all of it is there or nothing.  What is not found, or not
for the caller's eyes, raises SQLAlchemy's `NoResultFound`.
"""
