"""Rules of the folder `layers`."""

from cases import Case

CASES: tuple[Case, ...] = ()
