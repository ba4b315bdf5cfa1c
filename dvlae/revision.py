"""Numbers that the workflow hands to its rules, so that a change of method reruns what it affects.

Bump a number in the commit that changes what the step computes from the same settings and data, and say in CHANGELOG.md
what changed.
A change of code alone reruns nothing (see ``rerun-triggers`` in ``workflow/profiles``).
"""

PREPARE = 5
PATCHES = 6
TRAINING = 8
PREDICTION = 7
EVALUATION = 6
METHODS = 2
DIAGNOSIS = 5
