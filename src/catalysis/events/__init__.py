"""One frozen `QueryEvent` a statement, with the request and transaction it belongs to, and who hears of it.

Statements that SQLAlchemy runs, and all transactions, are heard through its public engine events, attached once
somebody listens: a process in which nobody does pays nothing.  The native path tells of its own.  An event carries
SQL and never a parameter's value.
"""

from catalysis.events.happened import (
    DatabaseAddress,
    QueryEvent,
    Scope,
    ScopeEvent,
    Transaction,
    TransactionEvent,
)
from catalysis.events.hooks import (
    NOT_A_READ,
    OWN_HOOKS,
    address_in,
    address_of,
    fallback_reason,
    note_replica,
    open_transactions,
    tell_of_commit,
    transaction_of,
)
from catalysis.events.naming import attribute_for, name_of
from catalysis.events.observing import heard_in_context, observe, subscribe
from catalysis.events.origins import note_origin, origin_of, rows_of
from catalysis.events.scopes import current_scope, scoped
from catalysis.events.sites import CallSite, CodeLine, call_line, call_site, sent_from, waits_at
from catalysis.events.telling import Listener, Observer, emit, is_heard

__all__ = [
    "NOT_A_READ",
    "OWN_HOOKS",
    "CallSite",
    "CodeLine",
    "DatabaseAddress",
    "Listener",
    "Observer",
    "QueryEvent",
    "Scope",
    "ScopeEvent",
    "Transaction",
    "TransactionEvent",
    "address_in",
    "address_of",
    "attribute_for",
    "call_line",
    "call_site",
    "current_scope",
    "emit",
    "fallback_reason",
    "heard_in_context",
    "is_heard",
    "name_of",
    "note_origin",
    "note_replica",
    "observe",
    "open_transactions",
    "origin_of",
    "rows_of",
    "scoped",
    "sent_from",
    "subscribe",
    "tell_of_commit",
    "transaction_of",
    "waits_at",
]
