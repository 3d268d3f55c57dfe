"""Rules of the folder `settings`."""

from cases import Case

CASES: tuple[Case, ...] = ()
