"""Rules of the folder `training`."""

from cases import Case

CASES: tuple[Case, ...] = ()
