"""The doctor: models and live database against each other and against good practice.  It changes nothing."""

from catalysis.doctor.complaint import Complaint, Diagnosis, Rule, Severity, Skipped
from catalysis.doctor.examine import RULES, examine
from catalysis.doctor.live import Limits

__all__ = ["RULES", "Complaint", "Diagnosis", "Limits", "Rule", "Severity", "Skipped", "examine"]
