"""What all tables share.  The names of constraints are agreed here, before the first table is made."""

from sqlmodel import SQLModel

from catalysis import NAMING_CONVENTION, ModelWithIdAndTimestamps

SQLModel.metadata.naming_convention = NAMING_CONVENTION


class Model(ModelWithIdAndTimestamps):
    """A row with an id and the times it was created, changed and deleted."""
