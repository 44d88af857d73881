"""Every exception and warning of Catalysis, drawn once.

    CatalysisError
    ├── ModelError               (also SQLAlchemy's InvalidRequestError and ArgumentError)
    ├── AttributeNotLoaded       (also SQLAlchemy's MissingGreenlet and InvalidRequestError)
    │   └── RelationshipNotLoaded
    ├── UnsupportedStatement     (also SQLAlchemy's InvalidRequestError)
    ├── SettingsError            (also ValueError)
    ├── InvalidPage              (also ValueError)
    ├── BulkError                (also ValueError)
    ├── ExplainError
    └── MigrationError
    UncommittedChanges           a UserWarning
    LoadedWhenTouched            a UserWarning
    RepeatedQuery                a UserWarning

Each says what happened, to which statement, attribute or setting, and what to do about it.  None carries a
parameter's value, a password or a whole URL.  Where SQLAlchemy has an exception for the same fault, ours is a
subclass of it, so that existing handlers still match.
"""

from sqlalchemy.exc import ArgumentError, InvalidRequestError, MissingGreenlet


class CatalysisError(Exception):
    """The base of everything Catalysis raises by itself."""


class ModelError(CatalysisError, InvalidRequestError, ArgumentError):
    """A model cannot be mapped or its table cannot be made; the message names the class and the mend."""


class AttributeNotLoaded(CatalysisError, MissingGreenlet):
    """An expired or deferred attribute was touched where nothing can wait for the database."""


class RelationshipNotLoaded(AttributeNotLoaded):
    """A relationship that no query loaded was touched where nothing can wait for the database."""


class UnsupportedStatement(CatalysisError, InvalidRequestError):
    """A statement that would not do what the model promises; nothing was sent."""


class SettingsError(CatalysisError, ValueError):
    """A setting (`DATABASE_URL`, a pool size…) cannot be used; the message names it without its secrets."""


class InvalidPage(CatalysisError, ValueError):
    """A page, size or cursor is out of bounds or was not made by this query."""


class BulkError(CatalysisError, ValueError):
    """A row of a bulk operation cannot be written; the message gives its number and column."""


class ExplainError(CatalysisError):
    """A statement cannot be explained on this database."""


class MigrationError(CatalysisError):
    """A migration command cannot go on; nothing was changed unless the message says so."""


class UncommittedChanges(UserWarning):
    """A session was left with work that was never committed; that work is lost."""


class LoadedWhenTouched(UserWarning):
    """An attribute was loaded because it was touched, in a session or relationship whose `strict_loading` warns."""


class RepeatedQuery(UserWarning):
    """One line sent the same statement again and again: a query in a loop."""
