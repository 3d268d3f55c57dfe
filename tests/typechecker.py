"""How shapes and types are checked while tests run: as a type checker reads them, so that 0 is a float."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
