"""How results are printed: the only place where words for people are made."""
