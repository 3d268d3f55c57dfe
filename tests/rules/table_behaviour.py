"""Rules of the folder `behaviour`."""

from cases import Case

CASES: tuple[Case, ...] = ()
