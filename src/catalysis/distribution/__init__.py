"""Distribution: where a model's rows are in a cluster of Citus, said at the declaration and true on every database.

A model says it with `__distribution__`, a bare table with `info={"distribution": …}` (`declared.py`).  What Citus would
refuse is refused when the mappers are configured (`rules.py`), so that a model written on a laptop fits a cluster.
`placing.py` has the SQL that puts tables in their places, for `create_all` and for migrations; `statements.py` looks
whether a statement says which shard it is about.
"""

from catalysis.distribution.declared import Distributed, Distribution, Local, Reference
from catalysis.distribution.placing import Placement
from catalysis.distribution.rules import check_distribution

__all__ = ["Distributed", "Distribution", "Local", "Placement", "Reference", "check_distribution"]
