"""A diagnosis for people: a table in the terminal, and one line that sums it up."""

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from catalysis.doctor.complaint import SEVERITIES, Diagnosis, Severity

STYLES: dict[Severity, str] = {"error": "red", "warning": "yellow", "info": "cyan"}


def report(diagnosis: Diagnosis) -> Iterator[Table | Text]:
    """What to print, in order."""
    if diagnosis.complaints:
        yield _table(diagnosis)
    if diagnosis.skipped:
        yield Text("Not looked at:", style="dim")
        for each in diagnosis.skipped:
            yield Text(f"  {each.code} {each.name}: {each.reason}", style="dim")
    yield _sum(diagnosis)


def _table(diagnosis: Diagnosis) -> Table:
    table = Table(show_lines=True, expand=False)
    for title in ("Rule", "Where", "What, and how to mend it"):
        table.add_column(title, overflow="fold")
    for each in diagnosis.complaints:
        rule = Text.assemble(
            (f"{each.severity} {each.code}", STYLES[each.severity]), "\n", (each.name, "dim")
        )
        table.add_row(rule, Text(each.subject), Text.assemble(each.message, "\n", (each.mend, "green")))
    return table


def _sum(diagnosis: Diagnosis) -> Text:
    if not diagnosis.complaints:
        return Text("Nothing to complain of.", style="green")
    parts: list[str] = []
    for severity in SEVERITIES:
        count = sum(each.severity == severity for each in diagnosis.complaints)
        if count:
            parts.append(f"{count} {_WORDS[severity]}{'s' if count > 1 else ''}")
    return Text(", ".join(parts) + ".", style=STYLES[diagnosis.complaints[0].severity])


_WORDS: dict[Severity, str] = {"error": "error", "warning": "warning", "info": "hint"}
