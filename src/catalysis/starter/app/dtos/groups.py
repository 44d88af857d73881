"""Groups and memberships."""

from datetime import datetime
from uuid import UUID

from catalysis import DTO
from catalysis.starter.app.dtos.fields import LongText, Name, left_out
from catalysis.starter.app.dtos.pages import Paging
from catalysis.starter.app.dtos.users import UserRefDTO
from catalysis.starter.app.models import Standing


class GroupDTO(DTO):
    """A group without its members."""

    id: UUID
    name: str
    description: str
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None


class CreateGroupDTO(DTO):
    """A new group, without members."""

    name: Name
    description: LongText = ""


class UpdateGroupDTO(DTO):
    """What is left out stays as it is."""

    name: Name = left_out()
    description: LongText = left_out()


class GroupQuery(Paging):
    """Which groups."""

    include_deleted: bool = False


class MemberDTO(DTO):
    """A user in a group."""

    user: UserRefDTO
    standing: Standing
    joined_at: datetime


class MembershipDTO(DTO):
    """A group that a user is in."""

    group: GroupDTO
    standing: Standing
    joined_at: datetime


class SetMembershipDTO(DTO):
    """What the user is to be in the group."""

    standing: Standing = Standing.member
