"""What the doctor says: rules, complaints, checks that were skipped, and the diagnosis that holds them.  Frozen.

Nothing here carries a row's value, the text of a running statement, a password or a host.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from catalysis.errors import SettingsError

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
"""The worst first."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """Something that is wrong, where, and what to write to mend it."""

    code: str
    """Of the rule, `D101`; it never gets another meaning."""
    name: str
    """Of the rule in words, `foreign-key-without-index`."""
    severity: Severity
    subject: str
    """What it is about: `task.user_id`, `index ix_task_due`, `process 4711`."""
    message: str
    mend: str
    """A line of code, SQL or a command."""
    source: str
    """Where the rule comes from."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A rule that could not be looked at, or only in part, and why."""

    code: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Rule:
    """What one check is about."""

    code: str
    name: str
    severity: Severity
    what: str
    source: str

    def complain(
        self, subject: str, message: str, mend: str, *, severity: Severity | None = None
    ) -> Complaint:
        """A complaint by this rule."""
        return Complaint(self.code, self.name, severity or self.severity, subject, message, mend, self.source)

    def skip(self, reason: str) -> Skipped:
        """The rule, not looked at."""
        return Skipped(self.code, self.name, reason)


@dataclass(frozen=True, slots=True)
class Ignored:
    """What a user does not want to hear of: rules by code or name, all of them or for one subject."""

    rules: frozenset[str] = frozenset()
    subjects: frozenset[tuple[str, str]] = frozenset()

    @classmethod
    def parse(cls, given: Iterable[str], rules: Iterable[Rule]) -> Self:
        """From `D101`, `foreign-key-without-index` or `D101:task.user_id`.

        Raises:
            SettingsError: there is no such rule.
        """
        codes = {key: rule.code for rule in rules for key in (rule.code, rule.name)}
        whole: set[str] = set()
        parts: set[tuple[str, str]] = set()
        for each in given:
            named, _, subject = each.partition(":")
            code = codes.get(named) or codes.get(named.upper())
            if code is None:
                raise SettingsError(
                    f"The doctor has no rule {named!r} that could be ignored.  Write a code, as in D101, a name, as "
                    "in foreign-key-without-index, or one with its subject, as in D101:task.user_id."
                )
            if subject:
                parts.add((code, subject))
            else:
                whole.add(code)
        return cls(frozenset(whole), frozenset(parts))

    def hides(self, said: Complaint | Skipped) -> bool:
        """Whether it is not to be told."""
        if said.code in self.rules:
            return True
        return isinstance(said, Complaint) and (said.code, said.subject) in self.subjects


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that was found, the worst first."""

    system: str
    """`postgresql`, `sqlite`."""
    database: str | None
    """Its name; SQLite: its file."""
    complaints: tuple[Complaint, ...]
    skipped: tuple[Skipped, ...]

    def at_least(self, severity: Severity) -> tuple[Complaint, ...]:
        """The complaints of this severity and of worse ones."""
        counted = SEVERITIES[: SEVERITIES.index(severity) + 1]
        return tuple(each for each in self.complaints if each.severity in counted)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; docs/doctor.md describes the keys."""
        return {
            "format": 1,
            "database": {"system": self.system, "name": self.database},
            "counts": {
                severity: sum(each.severity == severity for each in self.complaints)
                for severity in SEVERITIES
            },
            "complaints": [asdict(each) for each in self.complaints],
            "skipped": [asdict(each) for each in self.skipped],
        }


def in_order(complaints: Iterable[Complaint]) -> tuple[Complaint, ...]:
    """By severity, code and subject."""
    return tuple(
        sorted(complaints, key=lambda each: (SEVERITIES.index(each.severity), each.code, each.subject))
    )
